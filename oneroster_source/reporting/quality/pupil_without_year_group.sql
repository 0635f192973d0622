-- question: Which pupils are in no year group?
-- severity: warning
-- of: students
SELECT estab, sourced_id
FROM students
WHERE year_group IS NULL
