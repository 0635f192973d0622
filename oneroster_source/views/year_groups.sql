-- question: How many pupils are in each year, and in how many classes?
-- grain: one row per school and year group; pupils without one have a row with no year
-- key: estab, year_group
-- Classes are those that the year's pupils are in today.
SELECT
    s.estab,
    s.year_group,
    COUNT(DISTINCT s.sourced_id) AS students,
    COUNT(DISTINCT e.class_sourced_id) AS classes
FROM students AS s
LEFT JOIN current_enrollments AS e
    ON e.estab = s.estab AND e.user_sourced_id = s.sourced_id AND e.role = 'student'
GROUP BY s.estab, s.year_group
