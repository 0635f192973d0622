-- question: What is in each school?
SELECT estab, school_name, students, staff, classes, average_class_size, last_change, last_load
FROM school_summary
ORDER BY estab
