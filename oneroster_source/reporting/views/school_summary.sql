-- question: What is in each school, and how fresh is it?
-- grain: one row per school (estab)
-- key: estab
-- Classes are those that somebody is in today, and so is their average size. The last load is the
-- last run that read any of the school's collections.
SELECT
    o.estab,
    o.name AS school_name,
    COALESCE(p.students, 0) AS students,
    COALESCE(p.staff, 0) AS staff,
    COALESCE(p.teachers, 0) AS teachers,
    COALESCE(c.classes, 0) AS classes,
    c.average_class_size,
    m.last_change,
    l.last_load
FROM (
    SELECT e.estab, n.name
    FROM (
        SELECT estab FROM orgs
        UNION SELECT estab FROM users
        UNION SELECT estab FROM classes
        UNION SELECT estab FROM enrollments
        UNION SELECT estab FROM sync_run_details
    ) AS e
    LEFT JOIN (
        SELECT estab, name,
            ROW_NUMBER() OVER (
                PARTITION BY estab
                ORDER BY CASE WHEN identifier = estab THEN 0 WHEN type = 'school' THEN 1 ELSE 2 END,
                    name, sourced_id
            ) AS place
        FROM orgs
        WHERE NOT _deleted
    ) AS n ON n.estab = e.estab AND n.place = 1
) AS o
LEFT JOIN (
    SELECT
        estab,
        COUNT(CASE WHEN role ILIKE 'student' THEN 1 END) AS students,
        COUNT(CASE WHEN role ILIKE 'teacher' THEN 1 END) AS teachers,
        COUNT(
            CASE WHEN LOWER(role) IN ('teacher', 'aide', 'administrator', 'proctor') THEN 1 END
        ) AS staff
    FROM users
    WHERE NOT _deleted
    GROUP BY estab
) AS p ON p.estab = o.estab
LEFT JOIN (
    SELECT
        estab,
        COUNT(*) AS classes,
        CAST(ROUND(AVG(students), 1) AS DECIMAL(9, 1)) AS average_class_size
    FROM class_sizes
    WHERE students > 0
    GROUP BY estab
) AS c ON c.estab = o.estab
LEFT JOIN (
    SELECT estab, MAX(date_last_modified) AS last_change
    FROM (
        SELECT estab, date_last_modified FROM orgs
        UNION ALL SELECT estab, date_last_modified FROM academic_sessions
        UNION ALL SELECT estab, date_last_modified FROM courses
        UNION ALL SELECT estab, date_last_modified FROM classes
        UNION ALL SELECT estab, date_last_modified FROM users
        UNION ALL SELECT estab, date_last_modified FROM enrollments
    ) AS stamps
    GROUP BY estab
) AS m ON m.estab = o.estab
LEFT JOIN (
    SELECT estab, MAX(ended) AS last_load
    FROM sync_run_details
    WHERE outcome = 'read'
    GROUP BY estab
) AS l ON l.estab = o.estab
