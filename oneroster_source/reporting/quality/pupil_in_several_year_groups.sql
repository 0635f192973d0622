-- question: Which pupils are in more than one year group?
-- severity: info
-- of: students
-- ids: users
SELECT s.estab, s.sourced_id
FROM students AS s
JOIN users__grades AS g ON g.estab = s.estab AND g.user_sourced_id = s.sourced_id
GROUP BY s.estab, s.sourced_id
HAVING COUNT(DISTINCT g.value) > 1
