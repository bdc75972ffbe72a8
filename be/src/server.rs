//! What the parts of a running back end share.

use std::sync::Arc;

use crate::auth::Auth;
use crate::config::Config;
use crate::dav::guard::Locks;
use crate::delivery::Post;
use crate::devices::Register;
use crate::http::access_log::AccessLog;
use crate::http::body::Budget;
use crate::http::tls::Tls;
use crate::mailbox::Mailboxes;
use crate::mailbox::find::Searches;
use crate::notifier::Notifier;
use crate::placement::Elsewhere;
use crate::submission::Submission;

/// A running back end, as its tasks see it.
pub struct Server {
    pub config: Config,
    pub boxes: Arc<Mailboxes>,
    pub auth: Auth,
    pub notifier: Arc<Notifier>,
    pub post: Arc<Post>,
    pub submission: Arc<Submission>,
    /// Who is at another back end; none = nobody.
    pub elsewhere: Option<Arc<Elsewhere>>,
    pub tls: Option<Arc<Tls>>,
    /// What devices do, and what was decided of them.
    pub register: Arc<Register>,
    pub access_log: Option<AccessLog>,
    /// New for each process: 32 hex digits.
    pub boot: String,
    pub budget: Budget,
    pub searches: Searches,
    /// The locks of DAV clients; gone with the process.
    pub locks: Locks,
}
