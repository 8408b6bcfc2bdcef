-- Usual names of markets, so that a profile, a rule, a source or an asset may say NYSE and mean the calendar XNYS.

CREATE TABLE _tidemark.market_names (
    name text NOT NULL,
    market text NOT NULL,

    CONSTRAINT market_names_pkey PRIMARY KEY (name),
    CONSTRAINT market_names_in_capitals CHECK (name = upper(name))
);
COMMENT ON TABLE _tidemark.market_names IS 'Usual names of markets and the code that market_calendar has them under.';
COMMENT ON COLUMN _tidemark.market_names.name IS 'Usual name, in capitals.';
COMMENT ON COLUMN _tidemark.market_names.market IS 'Code of the market (market_calendar.market).';

INSERT INTO _tidemark.market_names (name, market)
VALUES
('ARCX', 'XNYS'),
('ASX', 'XASX'),
('B3', 'BVMF'),
('BATS', 'XNYS'),
('BIST', 'XIST'),
('BME', 'XMAD'),
('BMF', 'BVMF'),
('BSE', 'XBOM'),
('BVB', 'XBSE'),
('CBOT', 'CMES'),
('CFE', 'XCBF'),
('CME', 'CMES'),
('COMEX', 'CMES'),
('CRYPTO', '24/7'),
('EURONEXT', 'XPAR'),
('FOREX', 'FX'),
('FWB', 'XFRA'),
('GPW', 'XWAR'),
('HKEX', 'XHKG'),
('ICE', 'IEPA'),
('ICEUS', 'IEPA'),
('JKT', 'XIDX'),
('JPX', 'XTKS'),
('JSE', 'XJSE'),
('KRX', 'XKRX'),
('LSE', 'XLON'),
('LUXSE', 'XLUX'),
('NASDAQ', 'XNAS'),
('NYFE', 'IEPA'),
('NYMEX', 'CMES'),
('NYSE', 'XNYS'),
('OOTC', 'XNYS'),
('OSE', 'XOSL'),
('SGX', 'XSES'),
('SIX', 'XSWX'),
('SSE', 'XSHG'),
('TASE', 'XTAE'),
('TSX', 'XTSE'),
('TWSE', 'XTAI'),
('XASE', 'XNYS'),
('XETRA', 'XETR'),
('XTSX', 'XTSE');

SELECT set_config('tidemark.reason', 'markets are named by the codes of their calendars', true);
UPDATE public.quality_profiles AS q SET market = n.market
  FROM _tidemark.market_names AS n WHERE n.name = upper(q.market);
