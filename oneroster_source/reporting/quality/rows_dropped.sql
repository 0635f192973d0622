-- question: Which schools have lost a fifth of what they had at one of the last five checks?
-- severity: error
-- of: school_summary
-- ids: relations
-- Looked at are pupils, staff, classes and enrollments: the examples. Twenty rows are too few.
SELECT b.estab, b.relation AS sourced_id
FROM (
    SELECT q.estab, q.relation, MAX(q.rows_checked) AS rows_checked
    FROM quality_results AS q
    JOIN (
        SELECT run_id, ROW_NUMBER() OVER (ORDER BY MAX(checked_at) DESC) AS place
        FROM quality_results
        GROUP BY run_id
    ) AS r ON r.run_id = q.run_id AND r.place <= 5
    GROUP BY q.estab, q.relation
) AS b
LEFT JOIN (
    SELECT estab, 'students' AS relation, COUNT(*) AS rows_now
    FROM students
    GROUP BY estab
    UNION ALL
    SELECT estab, 'staff' AS relation, COUNT(*) AS rows_now
    FROM staff
    GROUP BY estab
    UNION ALL
    SELECT estab, 'classes' AS relation, COUNT(*) AS rows_now
    FROM classes
    WHERE NOT _deleted
    GROUP BY estab
    UNION ALL
    SELECT estab, 'enrollments' AS relation, COUNT(*) AS rows_now
    FROM enrollments
    WHERE NOT _deleted
    GROUP BY estab
) AS n ON n.estab = b.estab AND n.relation = b.relation
WHERE b.relation IN ('students', 'staff', 'classes', 'enrollments')
    AND b.rows_checked - COALESCE(n.rows_now, 0) > 20
    AND COALESCE(n.rows_now, 0) < 0.8 * b.rows_checked
