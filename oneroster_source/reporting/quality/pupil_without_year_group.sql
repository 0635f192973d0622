-- question: Which pupils are in no year group?
-- severity: warning
-- of: students
-- ids: users
SELECT estab, sourced_id
FROM students
WHERE year_group IS NULL
