"""OneRoster 1.1, the six rostering collections: the standard's attributes and Xporter's.

Everything but `sourcedId` may be missing: the standard's own texts disagree on what is required,
and Xporter sends an attribute only if it has a value.
"""

from __future__ import annotations

from oneroster_source.spec.model import ChildList, Dialect, Endpoint, Field, Ref


def _texts(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name) for name in names)


V1P1 = Dialect(
    version="1.1",
    people="users",
    endpoints=(
        Endpoint(
            name="orgs",
            singular="org",
            path="/orgs",
            fields=_texts("name", "type", "identifier"),
            refs=(Ref("parent", "orgs"),),
            lists=(ChildList("children", target="orgs"),),
        ),
        Endpoint(
            name="academic_sessions",
            singular="academic_session",
            path="/academicSessions",
            fields=(
                *_texts("title", "type"),
                Field("startDate", "date"),
                Field("endDate", "date"),
                # text: providers send 2026, 2025-2026 and 2025/2026
                Field("schoolYear"),
            ),
            refs=(Ref("parent", "academic_sessions"),),
            lists=(ChildList("children", target="academic_sessions"),),
        ),
        Endpoint(
            name="courses",
            singular="course",
            path="/courses",
            fields=_texts("title", "courseCode"),
            refs=(
                Ref("schoolYear", "academic_sessions"),
                Ref("org", "orgs", aliases=("orgs",)),
            ),
            lists=(
                ChildList("grades"),
                ChildList("subjects"),
                ChildList("subjectCodes"),
                ChildList("resources", target=""),
            ),
        ),
        Endpoint(
            name="classes",
            singular="class",
            path="/classes",
            fields=_texts("title", "classCode", "classType", "location"),
            refs=(Ref("course", "courses"), Ref("school", "orgs")),
            lists=(
                ChildList("terms", target="academic_sessions"),
                ChildList("grades"),
                ChildList("subjects"),
                ChildList("subjectCodes"),
                # a list in the standard's prose, one string in its OpenAPI file
                ChildList("periods"),
                ChildList("resources", target=""),
            ),
            versioned=True,
        ),
        Endpoint(
            name="users",
            singular="user",
            path="/users",
            fields=(
                Field("username", holds="identifier"),
                Field("givenName", holds="name"),
                Field("middleName", holds="name"),
                Field("familyName", holds="name"),
                Field("role"),
                Field("identifier", holds="identifier"),
                Field("email", holds="contact"),
                Field("sms", holds="contact"),
                Field("phone", holds="contact"),
                Field("enabledUser", "flag"),
                Field("password", holds="secret"),
            ),
            lists=(
                # the standard's list of references; Xporter sends ids alone
                ChildList("orgs", target="orgs", ids="orgSourcedIds", aliases=("org",)),
                ChildList(
                    "userIds", fields=(Field("type"), Field("identifier", holds="identifier"))
                ),
                ChildList("grades"),
                ChildList("agents", target="users"),
            ),
            personal=True,
            versioned=True,
        ),
        Endpoint(
            name="enrollments",
            singular="enrollment",
            path="/enrollments",
            fields=(
                Field("role"),
                Field("primary", "flag"),
                Field("beginDate", "date"),
                Field("endDate", "date"),
            ),
            refs=(Ref("user", "users"), Ref("class", "classes"), Ref("school", "orgs")),
            personal=True,
            versioned=True,
        ),
    ),
)
