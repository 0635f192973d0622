-- question: Which enrollments reach beyond the terms of their class?
-- severity: warning
-- of: enrollments
SELECT e.estab, e.sourced_id
FROM enrollments AS e
JOIN (
    SELECT r.estab, r.class_sourced_id, MIN(s.start_date) AS start_date, MAX(s.end_date) AS end_date
    FROM classes__terms AS r
    JOIN academic_sessions AS s
        ON s.estab = r.estab AND s.sourced_id = r.sourced_id AND NOT s._deleted
    GROUP BY r.estab, r.class_sourced_id
) AS t ON t.estab = e.estab AND t.class_sourced_id = e.class_sourced_id
WHERE NOT e._deleted AND (e.begin_date < t.start_date OR e.end_date > t.end_date)
