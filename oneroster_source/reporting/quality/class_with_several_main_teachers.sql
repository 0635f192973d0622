-- question: Which classes have more than one primary teacher today?
-- severity: info
-- of: class_sizes
-- ids: classes
SELECT estab, class_sourced_id AS sourced_id
FROM current_enrollments
WHERE role = 'teacher' AND is_primary
GROUP BY estab, class_sourced_id
HAVING COUNT(DISTINCT user_sourced_id) > 1
