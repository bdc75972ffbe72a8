//! A phone without sockets or clock: what it sends when, and what it makes of the answers.
//!
//! [`Phone`] is driven in real time against real servers (`drive`) and in virtual time in the simulated world
//! (`world`). It is built from what real phones are known to do, the unwise things included.
//!
//! Not here: passwords, HTTP, and the safety nets that some phones have beside push (an hourly Sync): what
//! push loses stays lost, so that tests see it.

mod heartbeat;
mod mailbox;
mod message;
mod phone;
mod profile;

pub use heartbeat::{Heartbeat, Kind, UnknownStrategy};
pub use mailbox::{Collection, Held, Mailbox, News};
pub use message::{Request, Response, SERVICE_PATH, Task};
pub use phone::{Counters, Phone, Trouble};
pub use profile::{Profile, class_of};
