-- A schema for each application, in which it finds its own tables: search_path = <application>, public.

CREATE SCHEMA buddy_ai;
COMMENT ON SCHEMA buddy_ai IS 'Tables as Buddy AI names them, as views over public: search_path = buddy_ai, public.';

CREATE SCHEMA cryptovolt;
COMMENT ON SCHEMA cryptovolt IS
'Tables as CryptoVolt names them, as views over public: search_path = cryptovolt, public.';

CREATE SCHEMA trading_manager;
COMMENT ON SCHEMA trading_manager IS
'Tables as Trading Manager names them, as views over public: search_path = trading_manager, public.';

CREATE SCHEMA hyperliquid;
COMMENT ON SCHEMA hyperliquid IS
'Tables as the Hyperliquid bot names them, as views over public: search_path = hyperliquid, public.';

CREATE SCHEMA btc_dashboard;
COMMENT ON SCHEMA btc_dashboard IS
'What the BTC dashboard names otherwise than public: search_path = btc_dashboard, public.';
