-- question: How many classes have how many pupils?
SELECT students, COUNT(*) AS classes
FROM class_sizes
WHERE students > 0
GROUP BY students
