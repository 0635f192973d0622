"""OneRoster 1.1, the six rostering collections: the standard's attributes and Xporter's.

Everything but `sourcedId` may be missing: the standard's own texts disagree on what is required,
and Xporter sends an attribute only if it has a value.
"""

from __future__ import annotations

from oneroster_source.model.model import ChildList, Dialect, Endpoint, Field, Ref

V1P1 = Dialect(
    version="1.1",
    people="users",
    endpoints=(
        Endpoint(
            name="orgs",
            singular="org",
            path="/orgs",
            fields=(
                Field("name", about="Name of the org"),
                Field(
                    "type",
                    about="Kind of org: department, school, district, local, state or national",
                ),
                Field("identifier", about="Identifier that people know, such as a school's number"),
            ),
            refs=(Ref("parent", "orgs", about="the org that it is part of"),),
            lists=(ChildList("children", target="orgs", about="an org that is part of it"),),
        ),
        Endpoint(
            name="academic_sessions",
            singular="academic_session",
            path="/academicSessions",
            fields=(
                Field("title", about="Name of the session, such as Autumn Term"),
                Field("type", about="Kind of session: gradingPeriod, semester, schoolYear or term"),
                Field("startDate", "date", about="Date on which it begins"),
                Field("endDate", "date", about="Date on which it ends"),
                # text: providers send 2026, 2025-2026 and 2025/2026
                Field("schoolYear", about="School year that it is in, such as 2026"),
            ),
            refs=(Ref("parent", "academic_sessions", about="the session that it is part of"),),
            lists=(
                ChildList(
                    "children", target="academic_sessions", about="a session that is part of it"
                ),
            ),
            yearly=True,
        ),
        Endpoint(
            name="courses",
            singular="course",
            path="/courses",
            fields=(
                Field("title", about="Name of the course"),
                Field("courseCode", about="Code that people know the course by"),
            ),
            refs=(
                Ref("schoolYear", "academic_sessions", about="the school year that it is given in"),
                Ref("org", "orgs", aliases=("orgs",), about="the org that gives it"),
            ),
            lists=(
                ChildList("grades", about="a grade, or year group, that it is for"),
                ChildList("subjects", about="a subject that it teaches"),
                ChildList("subjectCodes", about="code of a subject that it teaches"),
                ChildList("resources", target="", about="a resource that it uses"),
            ),
            yearly=True,
        ),
        Endpoint(
            name="classes",
            singular="class",
            path="/classes",
            fields=(
                Field(
                    "title",
                    about="Name of the class, such as 10X/Ma1; some schools put a teacher's in it",
                    holds="words",
                ),
                Field("classCode", about="Code that people know the class by"),
                Field("classType", about="Kind of class: homeroom or scheduled"),
                Field("location", about="Where it is held, such as a room"),
            ),
            refs=(
                Ref("course", "courses", about="the course that is taught in it"),
                Ref("school", "orgs", about="the school that holds it"),
            ),
            lists=(
                ChildList("terms", target="academic_sessions", about="a term that it is held in"),
                ChildList("grades", about="a grade, or year group, that it is for"),
                ChildList("subjects", about="a subject that is taught in it"),
                ChildList("subjectCodes", about="code of a subject that is taught in it"),
                # a list in the standard's prose, one string in its OpenAPI file
                ChildList("periods", about="a period of the timetable that it is held in"),
                ChildList("resources", target="", about="a resource that it uses"),
            ),
            versioned=True,
            yearly=True,
        ),
        Endpoint(
            name="users",
            singular="user",
            path="/users",
            fields=(
                Field("username", about="Name that the user logs in with", holds="identifier"),
                Field("givenName", about="Given name", holds="name"),
                Field("middleName", about="Middle names", holds="name"),
                Field("familyName", about="Family name", holds="name"),
                Field(
                    "role",
                    about="administrator, aide, guardian, parent, proctor, relative, student or"
                    " teacher",
                ),
                Field(
                    "identifier",
                    about="Identifier that people know, such as a number at the school",
                    holds="identifier",
                ),
                Field("email", about="Email address", holds="contact"),
                Field("sms", about="Number for text messages", holds="contact"),
                Field("phone", about="Telephone number", holds="contact"),
                Field("enabledUser", "flag", about="Whether the user may use the systems"),
                Field("password", about="Password to log in with", holds="secret"),
            ),
            lists=(
                # the standard's list of references; Xporter sends ids alone
                ChildList(
                    "orgs",
                    target="orgs",
                    ids="orgSourcedIds",
                    aliases=("org",),
                    about="an org that the user belongs to",
                ),
                ChildList(
                    "userIds",
                    fields=(
                        Field("type", about="Whose the identifier is, or its kind, such as UPN"),
                        Field(
                            "identifier",
                            about="Official or other identifier, such as a UPN",
                            holds="identifier",
                        ),
                    ),
                ),
                ChildList("grades", about="a grade, or year group, that the user is in"),
                ChildList(
                    "agents",
                    target="users",
                    about="a person related to the user, such as a parent or guardian",
                ),
            ),
            personal=True,
            versioned=True,
        ),
        Endpoint(
            name="enrollments",
            singular="enrollment",
            path="/enrollments",
            fields=(
                Field("role", about="What the user is in the class, such as student or teacher"),
                Field("primary", "flag", about="Whether this is the class's main teacher"),
                Field("beginDate", "date", about="Date on which it begins"),
                Field("endDate", "date", about="Date on which it ends"),
            ),
            refs=(
                Ref("user", "users", about="the user who is in the class"),
                Ref("class", "classes", about="the class that the user is in"),
                Ref("school", "orgs", about="the school that holds the class"),
            ),
            personal=True,
            versioned=True,
            yearly=True,
        ),
    ),
)
