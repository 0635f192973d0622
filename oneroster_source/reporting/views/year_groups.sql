-- question: How many pupils are in each year, and in how many classes?
-- grain: one row per school and year group; pupils without one have a row with no year
-- key: estab, year_group
-- Classes are those that the year's pupils are in today.
SELECT
    s.estab,
    s.year_group,
    COUNT(DISTINCT s.sourced_id) AS students,
    COUNT(DISTINCT c.sourced_id) AS classes
FROM students AS s
LEFT JOIN enrollment_states AS e
    ON e.estab = s.estab AND e.user_sourced_id = s.sourced_id
    AND e.role = 'student' AND e.state = 'current'
LEFT JOIN classes AS c
    ON c.estab = e.estab AND c.sourced_id = e.class_sourced_id AND NOT c._deleted
GROUP BY s.estab, s.year_group
