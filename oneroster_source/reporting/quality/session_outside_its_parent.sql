-- question: Which academic sessions reach beyond the one that they are part of?
-- severity: warning
-- of: academic_sessions
SELECT s.estab, s.sourced_id
FROM academic_sessions AS s
JOIN academic_sessions AS p ON p.estab = s.estab AND p.sourced_id = s.parent_sourced_id
WHERE NOT s._deleted AND NOT p._deleted
    AND (s.start_date < p.start_date OR s.end_date > p.end_date)
