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

-- Types by the names that an ORM gives a model's enumerations (Enum(Market) is sent as $1::market). They are text: what
-- may be in a column, the column says.
DO $do$
DECLARE
    v_type record;
BEGIN
    FOR v_type IN
        SELECT t.schema_name, n.name
          FROM (VALUES
                ('buddy_ai', ARRAY[
                    'userrole', 'market', 'markettype', 'modeltype', 'predictionmodel', 'direction',
                    'predictiondirection', 'signaldirection', 'signaltype', 'alerttype', 'alertcondition',
                    'positionside', 'timeframe'
                ]),
                ('cryptovolt', ARRAY['signaltype', 'tradetype', 'tradestatus', 'alerttype', 'modeltype']),
                ('trading_manager', ARRAY[
                    'assettype', 'candleinterval', 'timeframe', 'indicatortype', 'signaltype'
                ]),
                ('hyperliquid', ARRAY[
                    'sourcetype', 'entrytype', 'direction', 'tradedirection', 'outcome', 'tradeoutcome', 'impacttype',
                    'timeframe'
                ]),
                ('btc_dashboard', ARRAY[
                    'sourcestatus', 'sourcetype', 'sourcedatatype', 'datatype', 'ruletype', 'severity',
                    'anomalyseverity', 'anomalystatus', 'modeltype'
                ])
               ) AS t (schema_name, names)
         CROSS JOIN LATERAL unnest(t.names) AS n (name)
    LOOP
        EXECUTE format('CREATE DOMAIN %I.%I AS text', v_type.schema_name, v_type.name);
        EXECUTE format('COMMENT ON DOMAIN %I.%I IS %L', v_type.schema_name, v_type.name,
                       'Text, under the name that an ORM gives the type of an enumeration.');
    END LOOP;
END
$do$;
