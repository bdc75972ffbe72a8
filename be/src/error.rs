//! Everything that can fail in the back end, in the few kinds that the edges answer differently.

use std::io;

use crate::mailbox::quota::Exceeded;
use crate::mailbox::record::RecordError;
use crate::store::StoreError;

/// What failed, and for whom. The edges turn it into a status; the log gets the whole text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record of the store cannot be read.
    #[error("a record of mailbox {mailbox} cannot be read")]
    Record { mailbox: u64, source: RecordError },
    /// The user does not exist (or was removed meanwhile).
    #[error("there is no such user")]
    NoUser,
    /// A user of that name exists already.
    #[error("a user of that name exists already")]
    UserExists,
    /// A folder, an item or a state object is not there.
    #[error("{0} does not exist")]
    Gone(&'static str),
    /// `If-Match`, `If-None-Match`, `Overwrite: F`.
    #[error("a precondition does not hold")]
    Precondition,
    /// What is above it is missing, or something else does not let it be.
    #[error("{0}")]
    Conflict(&'static str),
    /// The name is taken.
    #[error("{0}")]
    Taken(&'static str),
    /// It may not be done to this resource.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The mailbox would hold more than it may: DAV says 507 with `quota-not-exceeded`, LMTP 452 4.2.2 or
    /// 552 5.2.2, ActiveSync Status 113.
    #[error("over quota: {0}")]
    Quota(Exceeded),
    /// A bound of the configuration is reached.
    #[error("{0} is over its bound")]
    OverBound(&'static str),
    /// A user's further device: ActiveSync Status 177.
    #[error("the user has as many devices as may be")]
    Devices,
    /// Too much is going on; try again later.
    #[error("too busy: {0}")]
    Busy(&'static str),
    /// The token belongs to another generation of the mailbox, or is too old.
    #[error("the token is not valid here")]
    Token,
    /// The operating system failed.
    #[error("{doing}")]
    Io { doing: String, source: io::Error },
    /// A task of ours ended without an answer.
    #[error("an internal task failed")]
    Task,
}

impl Error {
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// An error with all its causes, for the log: `what was being done: what the system said`.
pub struct WithCauses<'a>(pub &'a dyn std::error::Error);

impl std::fmt::Display for WithCauses<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = Error::io("listen on 127.0.0.1:80")(io::Error::other("no"));
        assert_eq!(WithCauses(&error).to_string(), "listen on 127.0.0.1:80: no");
    }
}
