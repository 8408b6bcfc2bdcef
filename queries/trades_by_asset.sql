-- How did the trades in each asset go?
-- parameters: since timestamptz = 2000-01-01, backtests boolean = false
-- columns: symbol text, trades bigint, open_trades bigint, wins bigint, win_rate numeric, pnl numeric,
--   average_r double precision
-- cost: every trade opened since :since
SELECT a.symbol,
       count(*) AS trades,
       count(*) FILTER (WHERE t.outcome = 'pending') AS open_trades,
       count(*) FILTER (WHERE t.outcome = 'win') AS wins,
       round(avg(CASE t.outcome WHEN 'win' THEN 1 WHEN 'loss' THEN 0 END), 4) AS win_rate,
       sum(t.pnl) AS pnl,
       avg(t.pnl_r) AS average_r
  FROM public.trades AS t
  JOIN public.assets AS a ON a.asset_id = t.asset_id
 WHERE t.entry_time >= :'since' AND t.is_backtest = :'backtests' AND t.status = 'executed'
 GROUP BY a.asset_id, a.symbol
 ORDER BY pnl DESC NULLS LAST, a.symbol ASC;
