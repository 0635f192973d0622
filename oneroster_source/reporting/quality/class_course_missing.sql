-- question: Which classes name a course that is not there?
-- severity: warning
-- of: classes
SELECT r.estab, r.sourced_id
FROM classes AS r
WHERE NOT r._deleted
    AND r.course_sourced_id IS NOT NULL
    AND NOT EXISTS (
        SELECT 1 FROM courses AS t WHERE t.estab = r.estab AND t.sourced_id = r.course_sourced_id
    )
