"""Each check of the quality of rosters, and what it is there to find."""

from __future__ import annotations

OTHERS = "estab = '2' AND sourced_id"
"""All faults are planted in the second of two schools."""
MANY = " UNION ALL ".join(f"SELECT 'x{n:02}' AS name" for n in range(41))


def enrollment(name: str, user: str, of: str, **more: str) -> str:
    values = {
        "estab": "'2'",
        "sourced_id": f"'{name}'",
        "role": "'student'",
        "user_sourced_id": f"'{user}'",
        "class_sourced_id": f"'{of}'",
        "school_sourced_id": "'school'",
        "date_last_modified": "CURRENT_TIMESTAMP",
        "_deleted": "FALSE",
        **more,
    }
    return f"INSERT INTO enrollments ({', '.join(values)}) VALUES ({', '.join(values.values())})"


def put(table: str, column: str, value: str, *names: str) -> str:
    listed = ", ".join(f"'{name}'" for name in names)
    return f"UPDATE {table} SET {column} = {value} WHERE {OTHERS} IN ({listed})"


FAULTS: dict[str, tuple[list[str], list[str]]] = {
    # check: what is done, and the ids that it is to find
    "enrollment_user_missing": ([enrollment("new", "nobody", "7A")], ["new"]),
    "enrollment_class_missing": ([enrollment("new", "p4", "none")], ["new"]),
    "enrollment_school_missing": (
        [put("enrollments", "school_sourced_id", "'none'", "7A-p1", "7A-p2")],
        ["7A-p1", "7A-p2"],
    ),
    "class_school_missing": ([put("classes", "school_sourced_id", "NULL", "7A")], ["7A"]),
    "class_course_missing": ([put("classes", "course_sourced_id", "'none'", "7A")], ["7A"]),
    "class_term_missing": (
        [
            "INSERT INTO classes__terms (estab, class_sourced_id, position, sourced_id)"
            " VALUES ('2', '7A', 8, 'none'), ('2', '7A', 9, 'nor')"
        ],
        ["7A"],
    ),
    "user_org_missing": (
        ["UPDATE users__orgs SET sourced_id = 'no' WHERE estab = '2' AND user_sourced_id = 'a1'"],
        ["a1"],
    ),
    "user_without_org": (
        ["DELETE FROM users__orgs WHERE estab = '2' AND user_sourced_id IN ('p1', 't2')"],
        ["p1", "t2"],
    ),
    "class_without_teacher": (
        [put("enrollments", "end_date", "CURRENT_DATE - 1", "7A-t1")],
        ["7A"],
    ),
    "class_without_pupils": (
        [
            put("enrollments", "_deleted", "TRUE", "8A/Ma-p4"),
            enrollment("new", "p4", "7A"),
        ],
        ["8A/Ma"],
    ),
    "pupil_without_class": (
        [
            put("enrollments", "user_sourced_id", "'p3'", "8A/Ma-p4"),
        ],
        ["p4"],
    ),
    "teacher_without_class": (
        [put("enrollments", "user_sourced_id", "'t1'", "7A/En-t2", "8A/Ma-t2")],
        ["t2"],
    ),
    "pupil_without_year_group": (
        ["DELETE FROM users__grades WHERE estab = '2' AND user_sourced_id = 'p2'"],
        ["p2"],
    ),
    "pupil_in_several_year_groups": (
        [
            "INSERT INTO users__grades (estab, user_sourced_id, position, value)"
            " VALUES ('2', 'p2', 1, '8')"
        ],
        ["p2"],
    ),
    "duplicate_username": ([put("users", "username", "'EVE.Elm'", "t1")], ["p1", "t1"]),
    "duplicate_identifier": (
        [put("users", "identifier", "'id-p4'", "p1", "p2")],
        ["p1", "p2", "p4"],
    ),
    "duplicate_email": ([put("users", "email", "'P4@school.example'", "h1")], ["h1", "p4"]),
    "user_without_name": (
        [put("users", "given_name", "NULL", "p1"), put("users", "family_name", "NULL", "t1")],
        ["p1", "t1"],
    ),
    "enrollment_ends_before_it_begins": (
        [
            put("enrollments", "begin_date", "CURRENT_DATE + 9", "7A-p1"),
            put("enrollments", "end_date", "CURRENT_DATE + 8", "7A-p1"),
        ],
        ["7A-p1"],
    ),
    "session_ends_before_it_begins": (
        [
            put("academic_sessions", "parent_sourced_id", "NULL", "autumn", "spring"),
            put("academic_sessions", "end_date", "start_date - 1", "year"),
        ],
        ["year"],
    ),
    "session_outside_its_parent": (
        [put("academic_sessions", "end_date", "end_date - 1", "year")],
        ["spring"],
    ),
    "enrollment_outside_its_terms": (
        [
            put("enrollments", "begin_date", "begin_date - 1", "7A-p1"),
            put("enrollments", "end_date", "end_date + 1", "7A-p2"),
        ],
        ["7A-p1", "7A-p2"],
    ),
    "enrollment_of_deleted_user": (
        [put("users", "_deleted", "TRUE", "a1")],
        ["7A-a1"],
    ),
    "enrollment_in_deleted_class": (
        [put("classes", "_deleted", "TRUE", "7A/En")],
        ["7A/En-p1", "7A/En-p2", "7A/En-t2"],
    ),
    "enrollment_twice": ([enrollment("again", "p1", "7A")], ["7A-p1", "again"]),
    "enrollment_role_differs": (
        [
            put("enrollments", "role", "'student'", "7A-a1"),
        ],
        ["7A-a1"],
    ),
    "unknown_status": (
        [put("users", "status", "'on holiday'", "p1"), put("orgs", "status", "'?'", "school")],
        ["p1", "school"],
    ),
    "unknown_user_role": ([put("users", "role", "'governor'", "h1")], ["h1"]),
    "unknown_enrollment_role": ([put("enrollments", "role", "'helper'", "7A-a1")], ["7A-a1"]),
    "unknown_type": (
        [
            put("orgs", "type", "'trust'", "authority"),
            put("classes", "class_type", "'club'", "7A"),
            put("academic_sessions", "type", "'half'", "autumn"),
        ],
        ["7A", "authority", "autumn"],
    ),
    "date_last_modified_missing": (
        [put("courses", "date_last_modified", "NULL", "ma7")],
        ["ma7"],
    ),
    "date_last_modified_in_future": (
        [put("users", "date_last_modified", "CURRENT_TIMESTAMP + INTERVAL '2' DAY", "p1")],
        ["p1"],
    ),
    "value_not_read": (
        [
            "INSERT INTO rejected_rows (estab, endpoint, sourced_id, position, reason)"
            " VALUES ('2', 'users', 'p1', 0, 'a'), ('2', 'users', 'p1', 1, 'b'),"
            " ('2', 'classes', NULL, 0, 'c')"
        ],
        ["classes", "p1"],
    ),
    "class_too_large": (
        [
            "INSERT INTO users (estab, sourced_id, given_name, family_name, role,"
            " date_last_modified, _deleted)"
            f" SELECT '2', name, 'A', 'B', 'student', CURRENT_TIMESTAMP, FALSE FROM ({MANY}) AS m",
            "INSERT INTO users__orgs (estab, user_sourced_id, position, sourced_id)"
            f" SELECT '2', name, 0, 'school' FROM ({MANY}) AS m",
            "INSERT INTO users__grades (estab, user_sourced_id, position, value)"
            f" SELECT '2', name, 0, '8' FROM ({MANY}) AS m",
            "INSERT INTO enrollments (estab, sourced_id, role, user_sourced_id, class_sourced_id,"
            " school_sourced_id, date_last_modified, _deleted)"
            " SELECT '2', name, 'student', name, '8A/Ma', 'school', CURRENT_TIMESTAMP, FALSE"
            f" FROM ({MANY}) AS m",
        ],
        ["8A/Ma"],
    ),
    "class_with_several_main_teachers": (
        [enrollment("new", "t2", "7A", role="'teacher'", **{'"primary"': "TRUE"})],
        ["7A"],
    ),
    "school_without_pupils": (
        [
            "INSERT INTO orgs (estab, sourced_id, date_last_modified, _deleted)"
            " VALUES ('2', 'other', CURRENT_TIMESTAMP, FALSE)",
            "UPDATE users SET role = 'parent' WHERE estab = '2' AND role = 'student'",
            "UPDATE enrollments SET role = 'parent' WHERE estab = '2' AND role = 'student'",
        ],
        ["2"],
    ),
    "school_not_loaded_lately": (
        ["UPDATE sync_run_details SET ended = ended - INTERVAL '4' DAY WHERE estab = '2'"],
        ["2"],
    ),
    "deletions_held": (
        [
            "INSERT INTO sync_run_details (run_id, estab, endpoint, started, ended, outcome) VALUES"
            " ('z', '2', 'classes', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP, 'held'),"
            " ('a', '2', 'users', CURRENT_TIMESTAMP - INTERVAL '9' DAY, NULL, 'held')"
        ],
        ["classes"],
    ),
    "collection_failed": (
        [
            "INSERT INTO sync_run_details (run_id, estab, endpoint, started, outcome)"
            " VALUES ('z', '2', 'classes', CURRENT_TIMESTAMP, 'failed'),"
            " ('a', '2', 'users', CURRENT_TIMESTAMP - INTERVAL '9' DAY, 'failed')"
        ],
        ["classes"],
    ),
}
