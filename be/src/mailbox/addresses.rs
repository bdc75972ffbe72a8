//! Whose an address is: users by name and alias, sub-addresses (RFC 5233 1), the domain served here, and who
//! gets the mail for nobody.

use std::sync::Arc;

use directpush_common::mail::Address;
use directpush_common::names::UserName;

use super::Mailboxes;
use super::users::Account;
use crate::error::Error;
use crate::placement::Elsewhere;

/// How addresses are read.
#[derive(Clone, Debug, Default)]
pub struct AddressRules {
    /// `user` and `user@<this>` are the same; an address in it that nobody has is nobody's.
    pub default_domain: Option<String>,
    /// What stands between a user and a tag: `+` in `user+tag`.
    pub delimiter: Option<char>,
    /// Who gets mail for addresses that nobody has.
    pub catch_all: Option<UserName>,
    /// Who is at another back end; none = nobody.
    pub elsewhere: Option<Arc<Elsewhere>>,
}

/// Where mail for an address goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// To a mailbox here.
    Here(Arc<Account>),
    /// It would be here, but nobody has it.
    Nobody,
    /// To another host.
    Elsewhere,
}

impl AddressRules {
    /// The names that an address may mean: first as it is, then without its tag.
    fn meant(&self, address: &str) -> Vec<Vec<UserName>> {
        let (local, domain) = match address.parse::<Address>() {
            Ok(address) => (address.local().to_lowercase(), Some(address.domain().to_owned())),
            // `RCPT TO:<postmaster>` (RFC 5321 4.5.1), or a name as people type it.
            Err(_) if !address.contains('@') => (address.to_lowercase(), None),
            Err(_) => return Vec::new(),
        };
        let bare = self.delimiter.and_then(|delimiter| local.split_once(delimiter)).map(|(user, _)| user);
        let locals = [Some(local.as_str()), bare.filter(|user| !user.is_empty())];
        locals.into_iter().flatten().map(|local| self.names(local, domain.as_deref())).collect()
    }

    fn names(&self, local: &str, domain: Option<&str>) -> Vec<UserName> {
        let own = self.default_domain.as_deref();
        let mut names = Vec::new();
        names.extend(domain.or(own).map(|domain| format!("{local}@{domain}")));
        if domain.is_none_or(|domain| self.is_own(domain)) {
            names.push(local.to_owned());
        }
        names.iter().filter_map(|name| name.parse().ok()).collect()
    }

    /// Whether an address, of this owner if it has one here, belongs to another back end.
    pub fn is_elsewhere(&self, address: &str, owner: Option<&Account>) -> bool {
        let Some(elsewhere) = &self.elsewhere else { return false };
        match owner {
            Some(owner) => elsewhere.of(&owner.name).is_some(),
            None => elsewhere.of_any(&self.meant(address).concat()).is_some(),
        }
    }

    fn is_own(&self, domain: &str) -> bool {
        self.default_domain.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(domain))
    }

    fn is_here(&self, address: &str) -> bool {
        address.rsplit_once('@').is_none_or(|(_, domain)| self.is_own(domain))
    }

    /// A user's own address: the name, with the domain if it has none.
    pub fn address_of(&self, user: &UserName) -> String {
        match (user.domain(), &self.default_domain) {
            (None, Some(own)) => format!("{user}@{own}"),
            _ => user.to_string(),
        }
    }
}

impl Mailboxes {
    /// The user who has an address: as name or alias, or as one of these with a tag. Nobody gets what
    /// others have not: no catch-all here.
    pub async fn owner(&self, rules: &AddressRules, address: &str) -> Result<Option<Arc<Account>>, Error> {
        for names in rules.meant(address) {
            for name in &names {
                if let Some(account) = self.users.account(name).await? {
                    return Ok(Some(account));
                }
            }
            if let Some(account) = self.users.with_alias(&names).await? {
                return Ok(Some(account));
            }
        }
        Ok(None)
    }

    /// Who gets mail that the MTA brings for an address: its owner, or who gets the mail for nobody.
    ///
    /// # Errors
    /// [`Error::Busy`] for mail that belongs to another back end: the MTA's map is behind, and it tries again.
    pub async fn recipient(
        &self,
        rules: &AddressRules,
        address: &str,
    ) -> Result<Option<Arc<Account>>, Error> {
        let owner = self.owner(rules, address).await?;
        if rules.is_elsewhere(address, owner.as_deref()) {
            return Err(Error::Busy("the mailbox is at another back end"));
        }
        match (owner, &rules.catch_all) {
            (None, Some(name)) => self.users.account(name).await,
            (owner, _) => Ok(owner),
        }
    }

    /// Where mail that somebody here writes to an address goes.
    pub async fn place(&self, rules: &AddressRules, address: &str) -> Result<Place, Error> {
        let here = rules.is_here(address);
        let owner = self.owner(rules, address).await?;
        if rules.is_elsewhere(address, owner.as_deref()) {
            return Ok(Place::Elsewhere);
        }
        let account = if here { self.recipient(rules, address).await? } else { owner };
        Ok(match account {
            Some(account) => Place::Here(account),
            None if here => Place::Nobody,
            None => Place::Elsewhere,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn name(text: &str) -> UserName {
        text.parse().unwrap()
    }

    async fn boxes() -> Arc<Mailboxes> {
        let (boxes, _jobs) = Mailboxes::open(Store::memory()).await.unwrap();
        for user in ["alice@x.example", "bob", "a+b@x.example"] {
            boxes.add_user(&name(user), String::new()).await.unwrap();
        }
        boxes.add_alias(&name("alice@x.example"), &name("sales@y.example")).await.unwrap();
        boxes
    }

    fn rules() -> AddressRules {
        let default_domain = Some("x.example".to_owned());
        AddressRules { default_domain, delimiter: Some('+'), ..AddressRules::default() }
    }

    #[tokio::test]
    async fn mail_for_another_back_end_is_not_taken() {
        use crate::config::place::{BackEnd, PlacementSettings};
        let dir = tempfile::tempdir().unwrap();
        let map = dir.path().join("placement");
        std::fs::write(&map, "* be-1\nbob be-2\ncarol@x.example be-2\n").unwrap();
        let back_ends = vec![BackEnd { name: "be-2".into(), url: "http://b:1".into() }];
        let settings = PlacementSettings { map, back_end: "be-1".into(), back_ends };
        let elsewhere = Some(Arc::new(Elsewhere::open(settings).unwrap()));
        let catch_all = Some(name("alice@x.example"));
        let rules = AddressRules { catch_all, elsewhere, ..rules() };
        let boxes = boxes().await;
        for address in ["bob@x.example", "bob+tag@x.example", "carol@x.example"] {
            assert!(matches!(boxes.recipient(&rules, address).await, Err(Error::Busy(_))), "{address}");
            assert_eq!(boxes.place(&rules, address).await.unwrap(), Place::Elsewhere, "{address}");
        }
        for address in ["alice@x.example", "nobody@x.example"] {
            assert!(boxes.recipient(&rules, address).await.unwrap().is_some(), "{address}");
        }
    }

    #[tokio::test]
    async fn an_address_is_found_by_name_alias_and_without_its_tag() {
        let boxes = boxes().await;
        for (address, wanted) in [
            ("alice@x.example", Some("alice@x.example")),
            ("ALICE+lists@X.example", Some("alice@x.example")),
            ("alice", Some("alice@x.example")),
            ("bob@x.example", Some("bob")),
            ("bob+a+b@x.example", Some("bob")),
            ("sales+2026@y.example", Some("alice@x.example")),
            ("a+b@x.example", Some("a+b@x.example")),
            ("a@x.example", None),
            ("+tag@x.example", None),
            ("alice@y.example", None),
            ("\"alice\"@x.example", Some("alice@x.example")),
            ("\"a b\"@x.example", None),
            ("alice@x.example@y", None),
            ("", None),
        ] {
            let owner = boxes.owner(&rules(), address).await.unwrap();
            assert_eq!(owner.map(|account| account.name.to_string()).as_deref(), wanted, "{address}");
        }
        let no_tags = AddressRules { delimiter: None, ..rules() };
        assert_eq!(boxes.owner(&no_tags, "alice+lists@x.example").await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_catch_all_gets_what_is_here_but_nobodys() {
        let boxes = boxes().await;
        let mut rules = rules();
        assert_eq!(boxes.place(&rules, "nobody@x.example").await.unwrap(), Place::Nobody);
        assert_eq!(boxes.place(&rules, "nobody@z.example").await.unwrap(), Place::Elsewhere);
        rules.catch_all = Some(name("bob"));
        let bob = boxes.users.account(&name("bob")).await.unwrap().unwrap();
        assert_eq!(boxes.place(&rules, "nobody@x.example").await.unwrap(), Place::Here(bob.clone()));
        assert_eq!(boxes.place(&rules, "nobody@z.example").await.unwrap(), Place::Elsewhere);
        // What the MTA brings it holds to be ours.
        assert_eq!(boxes.recipient(&rules, "nobody@z.example").await.unwrap(), Some(bob));
        assert_eq!(boxes.owner(&rules, "nobody@x.example").await.unwrap(), None);
    }

    #[test]
    fn a_user_without_a_domain_writes_from_ours() {
        assert_eq!(rules().address_of(&name("bob")), "bob@x.example");
        assert_eq!(rules().address_of(&name("alice@y.example")), "alice@y.example");
    }
}
