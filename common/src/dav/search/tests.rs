use proptest::prelude::*;

use super::*;

const SUBJECT: &str = "urn:schemas:httpmail:subject";

fn resource(uri: &str) -> Value {
    match uri {
        "DAV:ishidden" | "DAV:isfolder" => Value::Bool(false),
        "DAV:contentclass" => Value::Text("urn:content-classes:message".into()),
        "DAV:getcontentlength" => Value::Int(1234),
        "urn:schemas:httpmail:datereceived" => Value::Date(1_104_537_600_000),
        "urn:schemas-microsoft-com:office:office#Keywords" => {
            Value::Texts(vec!["Business".into(), "Other".into()])
        }
        SUBJECT => Value::Text("Re: It's 100% Fun".into()),
        _ => Value::Null,
    }
}

#[track_caller]
fn check(condition: &str, expected: bool) {
    let sql = format!("SELECT \"DAV:href\" FROM SCOPE('SHALLOW TRAVERSAL OF \"\"') WHERE {condition}");
    let search = Search::parse(&sql).unwrap();
    assert_eq!(search.matches(resource), expected, "{condition}");
    assert_eq!(Search::parse(&search.to_string()), Ok(search));
}

#[test]
fn a_search_as_a_client_of_the_time_sent_it() {
    let body = br#"<?xml version="1.0"?><g:searchrequest xmlns:g="DAV:"><g:sql>
        Select "urn:schemas:calendar:location", CAST("urn:schemas:calendar:dtend" AS 'dateTime.tz')
        FROM Scope ( 'SHALLOW TRAVERSAL OF "http://mail.example/exchange/a/Calendar/"' )
        WHERE "DAV:contentclass" = 'urn:content-classes:appointment'
        AND "urn:schemas:calendar:dtstart" &gt; CAST("2005-01-01T00:00:00Z" AS 'dateTime.tz')
        AND NOT "urn:schemas:calendar:instancetype" = 1
        ORDER BY "urn:schemas:calendar:dtstart" ASC, "DAV:href" DESC</g:sql></g:searchrequest>"#;
    let search = Search::parse_body(body).unwrap();
    let Select::These(selected) = &search.select else { panic!() };
    assert_eq!(selected[1], "urn:schemas:calendar:dtend");
    assert_eq!(
        search.scopes,
        [Scope { traversal: Traversal::Shallow, uri: "http://mail.example/exchange/a/Calendar/".into() }]
    );
    assert_eq!(search.order.len(), 2);
    assert!(search.order[1].descending);
    let properties = search.condition.as_ref().unwrap().properties();
    assert_eq!(properties[1], "urn:schemas:calendar:dtstart");
    assert_eq!(Search::parse(&search.to_string()), Ok(search));
}

#[test]
fn conditions() {
    check(r#""DAV:ishidden" = false AND "DAV:isfolder" = False"#, true);
    check(r#""DAV:ishidden" = 'true'"#, false);
    check(r#""DAV:ishidden" = CAST("0" AS 'boolean')"#, true);
    check(r#""DAV:contentclass" = "URN:content-classes:MESSAGE""#, true);
    check(r#""DAV:getcontentlength" > 1233 and "DAV:getcontentlength" <= 1234.5"#, true);
    check(r#""DAV:getcontentlength" >= '1235'"#, false);
    check(r#""DAV:getcontentlength" <> 5 OR "DAV:isfolder" = true"#, true);
    check(r#""urn:schemas:httpmail:datereceived" >= CAST("2005-01-01T00:00:00Z" AS 'dateTime.tz')"#, true);
    check(r#""urn:schemas:httpmail:datereceived" < '2005-01-01 00:00:01'"#, true);
    check(r#""urn:schemas:httpmail:datereceived" < '2005-01-01'"#, false);
    check(r#""urn:schemas:httpmail:subject" LIKE '%100%fun'"#, true);
    check(r#""urn:schemas:httpmail:subject" NOT LIKE 're:%'"#, false);
    check(r#""urn:schemas:httpmail:subject" = 'Re: It''s 100% Fun'"#, true);
    check(r#"CONTAINS("urn:schemas:httpmail:subject", '"IT''S"')"#, true);
    check(r"FREETEXT('anything')", false);
    check(r#""urn:schemas-microsoft-com:office:office#Keywords" = CAST("business" AS 'mv.string')"#, true);
    check(r#""urn:schemas-microsoft-com:office:office#Keywords" != CAST("Other" AS 'mv.string')"#, false);
    check(r#""x:none" IS NULL AND NOT "x:none" IS NOT NULL AND "x:none" = null"#, true);
    check(r#"CAST("DAV:getcontentlength" AS "string") LIKE '12%'"#, true);
}

#[test]
fn what_is_not_there_is_neither_equal_nor_unequal() {
    check(r#""x:none" = 'a'"#, false);
    check(r#"NOT "x:none" = 'a'"#, false);
    check(r#""x:none" != 'a' OR "DAV:isfolder" = false"#, true);
    check(r#"NOT ("x:none" = 'a' AND "DAV:isfolder" = true)"#, true);
    check(r#""DAV:getcontentlength" = 'abc'"#, false);
    check(r#"NOT "DAV:getcontentlength" = 'abc'"#, false);
}

#[test]
fn and_binds_closer_than_or() {
    check(r#""DAV:isfolder" = false OR "DAV:isfolder" = true AND "DAV:ishidden" = true"#, true);
    check(r#"("DAV:isfolder" = false OR "DAV:isfolder" = true) AND "DAV:ishidden" = true"#, false);
}

#[test]
fn scopes() {
    let scopes = |from: &str| Search::parse(&format!("SELECT * FROM {from}")).map(|search| search.scopes);
    let place = |traversal, uri: &str| Scope { traversal, uri: uri.into() };
    assert_eq!(scopes(r#""/a/""#), Ok(vec![place(Traversal::Shallow, "/a/")]));
    assert_eq!(scopes(r#"SCOPE("/a/")"#), Ok(vec![place(Traversal::Deep, "/a/")]));
    assert_eq!(scopes("SCOPE()"), Ok(vec![place(Traversal::Deep, "")]));
    assert_eq!(
        scopes(r#"SCOPE('hierarchical traversal of "/a b/"')"#),
        Ok(vec![place(Traversal::Hierarchical, "/a b/")])
    );
    assert_eq!(
        scopes(r#"SCOPE('DEEP  TRAVERSAL OF ("/a","/b")', 'SHALLOW TRAVERSAL OF ''/c''')"#),
        Ok(vec![place(Traversal::Deep, "/a"), place(Traversal::Deep, "/b"), place(Traversal::Shallow, "/c")])
    );
    assert!(scopes(r#"SCOPE('DEEP OF "/a"')"#).is_err());
    assert_eq!(
        scopes(&format!("SCOPE('DEEP TRAVERSAL OF {}')", "\"/a\",".repeat(11))),
        Err(SearchError::TooMany("places"))
    );
}

#[test]
fn what_cannot_be_carried_out_says_why() {
    let status = |sql: &str| Search::parse(sql).unwrap_err().status();
    for bad in [
        "",
        "SELECT",
        "DELETE FROM \"/a\"",
        "SELECT \"a:b\" FROM \"/a\" WHERE",
        "SELECT \"a:b\" FROM \"/a\" WHERE \"a:b\"",
        "SELECT \"a:b\" FROM \"/a\" WHERE \"a:b\" = ",
        "SELECT \"a:b\" FROM \"/a\" WHERE \"a:b\" = CAST('x' AS 'int')",
        "SELECT \"a:b\" FROM \"/a\" ORDER \"a:b\"",
        "SELECT \"a:b FROM \"/a\"",
        "SELECT \"a:b\" FROM \"/a\" extra",
        "SELECT \"a:b\" FROM \"/a\" WHERE \"a:b\" = NaN",
    ] {
        assert_eq!(status(bad), 400, "{bad}");
    }
    assert_eq!(status("SELECT \"a:b\" FROM \"/a\" GROUP BY \"a:b\""), 422);
    assert_eq!(status("SELECT \"a:b\" FROM \"/a\" WHERE \"a:b\" = CAST('x' AS 'odd')"), 422);
    let deep = format!("SELECT * FROM \"/a\" WHERE {}\"a:b\" = 1{}", "(".repeat(40), ")".repeat(40));
    assert_eq!(status(&deep), 422);
    let long = format!("SELECT * FROM \"/a\" WHERE {}\"a:b\" = 1", "NOT ".repeat(5_000));
    assert_eq!(status(&long), 422);
    let wide = format!("SELECT * FROM \"/a\" WHERE \"a:b\" = 1{}", " OR \"a:b\" = 1".repeat(300));
    assert_eq!(status(&wide), 422);
    let basic = br#"<searchrequest xmlns="DAV:"><basicsearch/></searchrequest>"#;
    assert_eq!(Search::parse_body(basic).unwrap_err().status(), 422);
    assert_eq!(Search::parse_body(b"<a/>").unwrap_err().status(), 400);
}

#[test]
fn rows_are_sorted_by_typed_values() {
    let search = Search::parse(r#"SELECT * FROM "" ORDER BY "a:size" DESC, "a:name""#).unwrap();
    let key = |size: Value, name: &str| vec![size, Value::Text(name.into())];
    let mut rows = [
        key(Value::Int(9), "b"),
        key(Value::Int(10), "x"),
        key(Value::Null, "a"),
        key(Value::Float(9.0), "A"),
    ];
    rows.sort_by(|a, b| search.compare(a, b));
    let names: Vec<_> = rows.iter().map(|row| row[1].texts()[0].as_str()).collect();
    assert_eq!(names, ["x", "A", "b", "a"]);
}

#[test]
fn property_uris_are_split_where_their_namespace_ends() {
    for (uri, ns, name) in [
        ("DAV:href", "DAV:", "href"),
        ("urn:schemas:httpmail:read", "urn:schemas:httpmail:", "read"),
        (
            "http://schemas.microsoft.com/exchange/permanenturl",
            "http://schemas.microsoft.com/exchange/",
            "permanenturl",
        ),
        (
            "urn:schemas-microsoft-com:office:office#Keywords",
            "urn:schemas-microsoft-com:office:office#",
            "Keywords",
        ),
    ] {
        assert_eq!(property_name(uri), Some(PropertyName::new(ns, name)));
    }
    assert_eq!(property_name("DAV:"), None);
    assert_eq!(property_name("plain"), None);
}

proptest! {
    #[test]
    fn never_panics(sql in "(SELECT|FROM|SCOPE|WHERE|NOT|AND|OR|LIKE|CAST|AS|IS|NULL|ORDER BY|[()*,=<>!'\"]|\"a:b\"|'int'|1| ){0,25}") {
        if let Ok(search) = Search::parse(&sql) {
            search.matches(resource);
            prop_assert_eq!(Search::parse(&search.to_string()), Ok(search));
        }
    }

    #[test]
    fn never_panics_on_anything(sql in "\\PC{0,60}") {
        let _ = Search::parse(&format!("SELECT * FROM \"\" WHERE {sql}"));
        let _ = Search::parse(&sql);
    }
}
