-- How well does each strategy rule do?
-- parameters: backtests boolean = false
-- columns: name text, confidence double precision, closed_trades bigint, wins bigint, win_rate numeric,
--   average_r double precision, pnl numeric, last_exit timestamptz
-- cost: every trade of the rules
SELECT r.name,
       r.confidence,
       count(t.trade_id) AS closed_trades,
       count(t.trade_id) FILTER (WHERE t.outcome = 'win') AS wins,
       round(avg(CASE t.outcome WHEN 'win' THEN 1 WHEN 'loss' THEN 0 END), 4) AS win_rate,
       avg(t.pnl_r) AS average_r,
       sum(t.pnl) AS pnl,
       max(t.exit_time) AS last_exit
  FROM public.strategy_rules AS r
  LEFT JOIN public.trades AS t
    ON t.strategy_rule_id = r.rule_id AND t.outcome <> 'pending' AND t.is_backtest = :'backtests'
 GROUP BY r.rule_id, r.name, r.confidence
 ORDER BY win_rate DESC NULLS LAST, closed_trades DESC, r.name ASC;
