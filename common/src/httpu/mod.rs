//! HTTP over UDP as Exchange 2003 spoke it: the Call-Back URL and the NOTIFY datagram.
//!
//! A NOTIFY is a hint: it carries no folder and no change, only where it is meant for. Not here: who may
//! send or receive one (the shells), when to send it (`push::ledger`).

mod call_back;
mod notify;

pub use call_back::{BadCallBack, CALL_BACK_BYTES_MAX, CallBack};
pub use notify::{DATAGRAM_BYTES_MAX, IDS_MAX, Notify, NotifyError, SubscriptionId};
