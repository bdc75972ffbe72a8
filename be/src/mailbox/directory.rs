//! The directory: the people of this back end as they see each other, and how a person is called.
//!
//! It is read whole once, and kept until a user or an alias changes, so that a question while somebody types costs no
//! read. Not here: who may ask (`dav::directory`), when a person is meant (`common::directory`).

use std::sync::Arc;

use directpush_common::directory::{DirectoryAnswer, DirectoryQuery, Person};
use directpush_common::names::UserName;

use super::Mailboxes;
use super::addresses::AddressRules;
use super::record::User;
use crate::error::Error;

/// Users read at a time.
const PAGE: usize = 500;
/// Characters of a person's name, at most.
pub const DISPLAY_NAME_CHARS_MAX: usize = 256;

/// The directory as it was read, and the number of changes that it knows.
#[derive(Default)]
pub(super) struct Kept(tokio::sync::Mutex<Option<(u64, Arc<[Person]>)>>);

/// A person's name that can be kept: without line ends and other controls, and not too long.
///
/// # Errors
/// What is wrong with it.
pub fn display_name(text: &str) -> Result<String, &'static str> {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err("a name holds no control characters");
    }
    if text.chars().count() > DISPLAY_NAME_CHARS_MAX {
        return Err("a name has at most 256 characters");
    }
    Ok(text.to_owned())
}

impl Mailboxes {
    /// One user as a person, hidden or not.
    pub async fn person(&self, rules: &AddressRules, name: &UserName) -> Result<Person, Error> {
        let (_, user) = self.users.record(name).await?.ok_or(Error::NoUser)?;
        let aliases = self.users.aliases_of(user.mailbox).await?;
        Ok(person(rules, name, &user, &aliases))
    }

    /// Who is meant by a query.
    pub async fn find_people(
        &self,
        rules: &AddressRules,
        query: &DirectoryQuery,
    ) -> Result<DirectoryAnswer, Error> {
        let people = self.people(rules).await?;
        let (wanted, limit) = (query.wanted(), query.bounded_limit());
        let mut answer = DirectoryAnswer::default();
        for person in people.iter().filter(|person| wanted.means(person)) {
            answer.total += 1;
            if answer.entries.len() < limit {
                answer.entries.push(person.clone());
            }
        }
        Ok(answer)
    }

    /// All people who are shown, in the order of their names.
    async fn people(&self, rules: &AddressRules) -> Result<Arc<[Person]>, Error> {
        let mut kept = self.users.directory.0.lock().await;
        let changes = self.users.changes();
        if let Some((known, people)) = &*kept
            && *known == changes
        {
            return Ok(Arc::clone(people));
        }
        let mut people = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.users.list(after.as_deref(), PAGE).await?;
            let mailboxes: Vec<u64> = page.iter().map(|(_, user)| user.mailbox).collect();
            let aliases = self.users.aliases_of_all(&mailboxes).await?;
            for ((name, user), aliases) in page.iter().zip(&aliases) {
                if !user.hidden && !user.disabled {
                    people.push(person(rules, name, user, aliases));
                }
            }
            match page.last() {
                Some((last, _)) if page.len() == PAGE => after = Some(last.to_string()),
                _ => break,
            }
        }
        people.sort_by_cached_key(|person| (person.name.to_lowercase(), person.user.clone()));
        let people: Arc<[Person]> = people.into();
        // A change that is being made (an odd number) may be in it or not: read again next time.
        *kept = (changes.is_multiple_of(2)).then(|| (changes, Arc::clone(&people)));
        Ok(people)
    }
}

fn person(rules: &AddressRules, name: &UserName, user: &User, aliases: &[UserName]) -> Person {
    let shown = if user.display_name.is_empty() { name.local_part() } else { &user.display_name };
    let addresses = std::iter::once(rules.address_of(name)).chain(aliases.iter().map(ToString::to_string));
    Person { name: shown.to_owned(), user: name.to_string(), addresses: addresses.collect() }
}

#[cfg(test)]
mod tests {
    use super::super::users::Edit;
    use super::*;
    use crate::store::Store;

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    async fn found(boxes: &Mailboxes, query: &str, limit: usize) -> (Vec<String>, usize) {
        let query = DirectoryQuery { query: query.into(), limit, exact: false };
        let answer = boxes.find_people(&AddressRules::default(), &query).await.unwrap();
        (answer.entries.into_iter().map(|person| person.user).collect(), answer.total)
    }

    #[tokio::test]
    async fn people_are_found_as_they_are_now() {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        for n in 0..PAGE + 3 {
            boxes.add_user(&name(&format!("u{n}@x.example")), String::new()).await.unwrap();
        }
        assert_eq!(found(&boxes, "u", 2).await.1, PAGE + 3);
        let someone = name("u502@x.example");
        let named = |text: &str| Edit { display_name: Some(text.into()), ..Edit::default() };
        let before = boxes.users.account(&someone).await.unwrap().unwrap();
        let after = boxes.edit_user(&someone, named("Zoë Stone")).await.unwrap();
        assert_eq!(before.version, after.version, "a name ends no log-on");
        assert_eq!(found(&boxes, "sto zoë", 5).await, (vec![someone.to_string()], 1));
        boxes.add_alias(&someone, &name("boss@x.example")).await.unwrap();
        assert_eq!(found(&boxes, "boss", 5).await.1, 1);
        let person = boxes.person(&AddressRules::default(), &someone).await.unwrap();
        assert_eq!(person.addresses, ["u502@x.example", "boss@x.example"]);
        boxes.edit_user(&someone, Edit { hidden: Some(true), ..Edit::default() }).await.unwrap();
        assert_eq!(found(&boxes, "boss", 5).await.1, 0);
        boxes
            .edit_user(&name("u1@x.example"), Edit { disabled: Some(true), ..Edit::default() })
            .await
            .unwrap();
        assert_eq!(found(&boxes, "u1@", 5).await.1, 0);
    }

    #[test]
    fn names_are_one_line() {
        assert_eq!(display_name(" Ann Lee ").as_deref(), Ok("Ann Lee"));
        assert!(display_name("a\r\nBcc: b").is_err() && display_name(&"x".repeat(257)).is_err());
    }
}
