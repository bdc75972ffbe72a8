//! ResolveRecipients ([MS-ASCMD] 2.2.1.15 ResolveRecipients): names and addresses, looked up in the directory.
//!
//! Certificates, free and busy times and pictures are not kept: each is answered with the status that says so.

use directpush_common::directory::{DirectoryAnswer, DirectoryQuery, ENTRIES_MAX};
use directpush_common::eas::resolve_recipients::{
    AMBIGUOUS_DEFAULT, Recipient, ResolveRequest, ResolveResponse, ResolveStatus, Resolved,
};
use directpush_common::wbxml::Limits;

use super::{Reaction, Request};
use crate::backend::Result;

/// Carries out the command.
///
/// # Errors
/// [`crate::backend::Error`].
pub async fn run(request: &Request) -> Result<Reaction> {
    let asked = match ResolveRequest::decode(&request.body, Limits::default()) {
        Ok(asked) => asked,
        Err(error) => return Ok(error.answer(request.line.version).into()),
    };
    let most = asked.ambiguous_max.unwrap_or(AMBIGUOUS_DEFAULT);
    let mut resolved = Vec::with_capacity(asked.to.len());
    for name in &asked.to {
        let found = look_up(request, name, most).await?;
        resolved.push(answer(&asked, name, most, &found));
    }
    let note = format!("Fc{}_St1", resolved.len());
    Ok(Reaction::Body(ResolveResponse::Resolved(resolved).encode(), note))
}

/// A whole name or address means one person, even where others begin alike.
async fn look_up(request: &Request, name: &str, most: usize) -> Result<DirectoryAnswer> {
    let session = &request.session;
    let exact = DirectoryQuery { query: name.to_owned(), limit: 2, exact: true };
    let found = request.backend().directory(session, &exact).await?;
    if found.entries.len() == 1 {
        return Ok(found);
    }
    let begun = DirectoryQuery { exact: false, limit: most.clamp(1, ENTRIES_MAX), ..exact };
    request.backend().directory(session, &begun).await
}

fn answer(asked: &ResolveRequest, name: &str, most: usize, found: &DirectoryAnswer) -> Resolved {
    let people: Vec<Recipient> = found
        .entries
        .iter()
        .map(|person| Recipient {
            name: person.name.clone(),
            address: person.addresses.first().unwrap_or(&person.user).clone(),
            certificates: false,
            availability: false,
            picture: false,
        })
        .collect();
    let to = name.to_owned();
    match people.as_slice() {
        [] => Resolved { to, status: ResolveStatus::Unresolved, count: 0, people },
        [person] if found.total == 1 => {
            let person = Recipient {
                certificates: asked.certificates,
                availability: asked.availability.is_some(),
                picture: asked.pictures,
                ..person.clone()
            };
            Resolved { to, status: ResolveStatus::Success, count: 1, people: vec![person] }
        }
        _ => {
            let people: Vec<Recipient> = people.into_iter().take(most).collect();
            let whole = people.len() == found.total;
            let status = if whole { ResolveStatus::Ambiguous } else { ResolveStatus::AmbiguousPartly };
            Resolved { to, status, count: found.total, people }
        }
    }
}

#[cfg(test)]
mod tests {
    use directpush_common::directory::Person;

    use super::*;

    fn found(names: &[&str], total: usize) -> DirectoryAnswer {
        let person = |name: &&str| Person {
            name: (*name).to_owned(),
            user: (*name).to_owned(),
            addresses: vec![format!("{name}@example.com")],
        };
        DirectoryAnswer { entries: names.iter().map(person).collect(), total }
    }

    #[test]
    fn a_name_means_one_several_too_many_or_nobody() {
        let asked = ResolveRequest { certificates: true, ..ResolveRequest::default() };
        let told = |found: &DirectoryAnswer, most| {
            let told = answer(&asked, "a", most, found);
            (told.status, told.count, told.people.len())
        };
        assert_eq!(told(&found(&["a"], 1), 5), (ResolveStatus::Success, 1, 1));
        assert_eq!(told(&found(&["a", "ab"], 2), 5), (ResolveStatus::Ambiguous, 2, 2));
        assert_eq!(told(&found(&["a", "ab"], 9), 2), (ResolveStatus::AmbiguousPartly, 9, 2));
        assert_eq!(told(&found(&["a"], 9), 0), (ResolveStatus::AmbiguousPartly, 9, 0));
        assert_eq!(told(&found(&[], 0), 5), (ResolveStatus::Unresolved, 0, 0));
        let one = answer(&asked, "a", 5, &found(&["a"], 1));
        assert!(one.people[0].certificates && one.people[0].address == "a@example.com");
    }
}
