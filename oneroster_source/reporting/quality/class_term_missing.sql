-- question: Which classes name a term that is not there?
-- severity: warning
-- of: classes
SELECT DISTINCT c.estab, c.sourced_id
FROM classes AS c
JOIN classes__terms AS r ON r.estab = c.estab AND r.class_sourced_id = c.sourced_id
WHERE NOT c._deleted
    AND NOT EXISTS (
        SELECT 1 FROM academic_sessions AS t
        WHERE t.estab = r.estab AND t.sourced_id = r.sourced_id
    )
