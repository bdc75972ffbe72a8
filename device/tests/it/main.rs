#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
//! The whole system on loopback: real front and back ends, real sockets, a real store; phones and an MTA.
//!
//! What these tests show is that nothing is lost, whatever becomes of datagrams, servers and networks.

mod backup;
mod corpus;
mod crash;
mod dav;
mod disk;
mod elsewhere;
mod first_day;
mod first_day_account;
mod first_day_handset;
mod flow;
mod loss;
mod model;
mod moves;
mod mta;
mod oracle;
mod orders;
mod process;
mod program;
mod quiet;
mod restart;
mod stage;
mod status;
