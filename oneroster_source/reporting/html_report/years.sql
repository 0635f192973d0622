-- question: How many pupils are in each year group?
SELECT year_group, CAST(SUM(students) AS BIGINT) AS students
FROM year_groups
GROUP BY year_group
