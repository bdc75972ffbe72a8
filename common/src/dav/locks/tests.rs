use proptest::prelude::*;

use super::*;

const T0: Moment = Moment(1_000_000);
const LIMITS: LockLimits = LockLimits { timeout_secs_max: 3_600, timeout_secs: 600, locks_max: 10 };

fn path(text: &str) -> LockPath {
    LockPath::new(text.split('/').filter(|segment| !segment.is_empty()))
}

fn new(at: &str, exclusive: bool, infinite: bool, n: u8) -> NewLock {
    NewLock {
        path: path(at),
        root: format!("/{at}"),
        exclusive,
        infinite,
        owner: String::new(),
        timeout: None,
        guid: Guid([n; 16]),
    }
}

#[track_caller]
fn lock(table: &mut LockTable, at: &str, exclusive: bool, infinite: bool, n: u8) -> String {
    table.lock(new(at, exclusive, infinite, n), LIMITS, T0).unwrap().token.clone()
}

#[test]
fn a_lock_binds_those_who_do_not_have_its_token() {
    let mut table = LockTable::default();
    let token = lock(&mut table, "inbox/a", true, false, 1);
    let a = path("Inbox/A");
    for touch in [Touch::Resource, Touch::Member, Touch::Tree] {
        let refused = table.allows(&a, touch, &[], T0).unwrap_err();
        assert_eq!(refused, Locked { roots: vec!["/inbox/a".into()], members_only: false });
        assert!(table.allows(&a, touch, &[&token], T0).is_ok());
        assert!(table.allows(&path("inbox/ab"), touch, &[], T0).is_ok());
    }
    // Depth 0 on a member says nothing of its siblings, but the collection cannot go with it.
    assert!(table.allows(&path("inbox"), Touch::Resource, &[], T0).is_ok());
    let refused = table.allows(&path("inbox"), Touch::Tree, &[], T0).unwrap_err();
    assert!(refused.members_only);
    assert!(table.allows(&path("inbox"), Touch::Tree, &[&token], T0).is_ok());
    assert!(table.allows(&path(""), Touch::Tree, &[], T0).is_err());
    table.unlock(&a, &token, T0).unwrap();
    assert!(table.allows(&a, Touch::Tree, &[], T0).is_ok());
    assert!(table.is_empty());
}

#[test]
fn a_collection_lock_protects_its_members_names() {
    let mut table = LockTable::default();
    let token = lock(&mut table, "c", true, false, 1);
    assert!(table.allows(&path("c/x"), Touch::Member, &[], T0).is_err());
    assert!(table.allows(&path("c/x"), Touch::Tree, &[], T0).is_err());
    assert!(
        table.allows(&path("c/x"), Touch::Resource, &[], T0).is_ok(),
        "depth 0: the member itself is free"
    );
    assert!(table.allows(&path("c/x/y"), Touch::Member, &[], T0).is_ok());
    assert!(table.allows(&path("c/x"), Touch::Member, &[&token], T0).is_ok());
    table.unlock(&path("c"), &token, T0).unwrap();
    let token = lock(&mut table, "c", true, true, 2);
    for touch in [Touch::Resource, Touch::Member, Touch::Tree] {
        assert!(table.allows(&path("c/x/y"), touch, &[], T0).is_err());
        assert!(table.allows(&path("c/x/y"), touch, &[&token], T0).is_ok());
    }
    assert_eq!(table.covering(&path("c/x/y"), T0).len(), 1);
    assert!(table.covering(&path("cx"), T0).is_empty());
}

#[test]
fn conflicts_as_rfc_4918_has_them() {
    let mut table = LockTable::default();
    lock(&mut table, "c/x", false, false, 1);
    lock(&mut table, "c/x", false, false, 2);
    let refused = |table: &mut LockTable, at: &str, exclusive, infinite| {
        table.lock(new(at, exclusive, infinite, 9), LIMITS, T0).unwrap_err()
    };
    assert_eq!(refused(&mut table, "c/x", true, false), LockRefusal::Conflict(vec!["/c/x".into()]));
    assert_eq!(refused(&mut table, "c", true, true), LockRefusal::Members(vec!["/c/x".into()]));
    lock(&mut table, "c", true, false, 3);
    assert_eq!(refused(&mut table, "c", false, false), LockRefusal::Conflict(vec!["/c".into()]));
    lock(&mut table, "d", true, true, 4);
    assert_eq!(refused(&mut table, "d/e/f", false, false), LockRefusal::Conflict(vec!["/d".into()]));
    assert_eq!(table.len(), 4);
}

#[test]
fn one_token_of_shared_locks_is_enough() {
    let mut table = LockTable::default();
    lock(&mut table, "x", false, false, 1);
    let second = lock(&mut table, "x", false, false, 2);
    assert!(table.allows(&path("x"), Touch::Resource, &[], T0).is_err());
    assert!(table.allows(&path("x"), Touch::Resource, &[&second], T0).is_ok());
}

#[test]
fn locks_expire_and_are_refreshed() {
    let mut table = LockTable::default();
    let token = lock(&mut table, "c", true, true, 1);
    let late = T0.plus_secs(599);
    assert!(table.allows(&path("c"), Touch::Resource, &[], late).is_err());
    // A refresh may come by any resource that the lock covers.
    let lock = table.refresh(&path("c/x"), &token, Some(Timeout::Infinite), LIMITS, late).unwrap();
    assert_eq!((lock.secs, lock.secs_left(late)), (3_600, 3_600));
    let end = late.plus_secs(3_600);
    assert!(table.refresh(&path("c"), &token, None, LIMITS, end).is_err());
    assert!(table.unlock(&path("c"), &token, end).is_err());
    assert!(table.allows(&path("c"), Touch::Resource, &[], end).is_ok());
    assert!(table.lock(new("c", true, true, 2), LIMITS, end).is_ok());
    table.expire(end);
    assert_eq!(table.len(), 1);
}

#[test]
fn a_token_counts_only_where_its_lock_does() {
    let mut table = LockTable::default();
    let token = lock(&mut table, "a", true, false, 1);
    assert_eq!(table.unlock(&path("b"), &token, T0), Err(NoSuchLock));
    assert_eq!(table.unlock(&path("a/b"), &token, T0), Err(NoSuchLock), "depth 0 does not reach members");
    assert_eq!(table.unlock(&path("a"), "opaquelocktoken:other", T0), Err(NoSuchLock));
    assert!(table.unlock(&path("A"), &token, T0).is_ok());
}

#[test]
fn what_goes_away_takes_its_locks_along() {
    let mut table = LockTable::default();
    lock(&mut table, "c", true, false, 1);
    lock(&mut table, "c/x", true, false, 2);
    lock(&mut table, "c!", true, false, 3);
    lock(&mut table, "c0", true, false, 4);
    table.forget(&path("C"));
    assert_eq!(table.len(), 2);
    assert!(table.allows(&path("c/x"), Touch::Tree, &[], T0).is_ok());
    table.forget(&path(""));
    assert!(table.is_empty());
}

#[test]
fn locks_are_bounded() {
    let mut table = LockTable::default();
    for n in 0..10 {
        lock(&mut table, &format!("x{n}"), true, false, n);
    }
    assert_eq!(table.lock(new("y", true, false, 99), LIMITS, T0), Err(LockRefusal::TooMany));
    assert!(
        table.lock(new("y", true, false, 99), LIMITS, T0.plus_secs(600)).is_ok(),
        "expired ones make room"
    );
    assert_eq!(table.len(), 1);
}

proptest! {
    /// Against a plain list of locks: what covers a path, and that exclusive means exclusive.
    #[test]
    fn the_table_agrees_with_a_list(
        steps in prop::collection::vec((0_u8..4, "[abA]{0,1}(/[ab]){0,2}", any::<bool>(), any::<bool>()), 1..40)
    ) {
        let mut table = LockTable::default();
        let mut list: Vec<(String, bool, bool, String)> = Vec::new();
        let inside = |at: &str, root: &str| root.is_empty() || at == root || at.starts_with(&format!("{root}/"));
        for (n, (what, at, exclusive, infinite)) in steps.into_iter().enumerate() {
            let folded = path(&at).0;
            match what {
                0 | 1 => {
                    let clash = list.iter().any(|(root, held, deep, _)| {
                        let meet = *root == folded || (*deep && inside(&folded, root)) || (infinite && inside(root, &folded));
                        meet && (exclusive || *held)
                    });
                    let limits = LockLimits { locks_max: 100, ..LIMITS };
                    let made = table.lock(new(&at, exclusive, infinite, u8::try_from(n).unwrap()), limits, T0);
                    prop_assert_eq!(made.is_err(), clash);
                    if let Ok(made) = made {
                        list.push((folded, exclusive, infinite, made.token.clone()));
                    }
                }
                2 => {
                    table.forget(&path(&at));
                    list.retain(|(root, ..)| !inside(root, &folded));
                }
                _ => {
                    let held = list.iter().position(|(root, _, deep, _)| *root == folded || (*deep && inside(&folded, root)));
                    if let Some(held) = held {
                        let token = list.remove(held).3;
                        prop_assert!(table.unlock(&path(&at), &token, T0).is_ok());
                    }
                }
            }
            let covering = table.covering(&path(&at), T0).len();
            let folded = path(&at).0;
            let expected = list.iter().filter(|(root, _, deep, _)| *root == folded || (*deep && inside(&folded, root))).count();
            prop_assert_eq!(covering, expected);
            prop_assert_eq!(table.len(), list.len());
        }
    }
}
