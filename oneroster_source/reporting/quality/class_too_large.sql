-- question: Which classes have more than 40 pupils today?
-- severity: info
-- of: class_sizes
-- ids: classes
SELECT estab, class_sourced_id AS sourced_id
FROM class_sizes
WHERE students > 40
