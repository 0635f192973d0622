-- question: Which rows say that they will change tomorrow or later?
-- severity: warning
-- of: orgs, academic_sessions, courses, classes, users, enrollments
SELECT estab, sourced_id
FROM orgs
WHERE NOT _deleted AND date_last_modified > CURRENT_TIMESTAMP + INTERVAL '1' DAY
UNION ALL
SELECT estab, sourced_id
FROM academic_sessions
WHERE NOT _deleted AND date_last_modified > CURRENT_TIMESTAMP + INTERVAL '1' DAY
UNION ALL
SELECT estab, sourced_id
FROM courses
WHERE NOT _deleted AND date_last_modified > CURRENT_TIMESTAMP + INTERVAL '1' DAY
UNION ALL
SELECT estab, sourced_id
FROM classes
WHERE NOT _deleted AND date_last_modified > CURRENT_TIMESTAMP + INTERVAL '1' DAY
UNION ALL
SELECT estab, sourced_id
FROM users
WHERE NOT _deleted AND date_last_modified > CURRENT_TIMESTAMP + INTERVAL '1' DAY
UNION ALL
SELECT estab, sourced_id
FROM enrollments
WHERE NOT _deleted AND date_last_modified > CURRENT_TIMESTAMP + INTERVAL '1' DAY
