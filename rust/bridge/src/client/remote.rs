//! Clients of brokers in other processes, and what concerns a broker with several clients.
use std::path::PathBuf;

use headrace_protocol::client::Client;
use headrace_runtime::broker::Network;
use headrace_runtime::inproc::Interest;
use headrace_runtime::remote::{ConnectError, Connection};
use headrace_sys::zmq::{Key, OwnKeys, PeerKeys};
use headrace_wire::{Hello, PROTOCOL_VERSION, Role};
use pyo3::prelude::*;

use super::ClientCore;
use super::failures::error;
use super::link::Link;
use super::session::{Deadline, SLICE, Session};
use super::tables::Tables;
use crate::errors::usage_error;

/// A session with the broker that listens at an endpoint, which asks for keys (own public, own secret, the broker's public) where
/// that is in the network; at most `timeout_s` seconds until there is a connection.
#[pyfunction]
pub(crate) fn connect_client(
    py: Python<'_>,
    endpoint: &str,
    libzmq: Vec<PathBuf>,
    timeout_s: f64,
    keys: Option<(String, String, String)>,
) -> PyResult<ClientCore> {
    let keys = keys.map(peer_keys).transpose()?;
    let explain = |why: ConnectError| match why {
        ConnectError::Refused => error(py, "AuthError", &format!("{endpoint}: {why}")),
        _ => error(py, "InfraError", &format!("{endpoint}: {why}")),
    };
    let deadline = Deadline::after(Some(timeout_s));
    let mut connection = Connection::begin(&libzmq, endpoint, keys.as_ref()).map_err(explain)?;
    loop {
        let slice = deadline.left().map_or(SLICE, |left| left.min(SLICE));
        if py.detach(|| connection.wait(slice)).map_err(explain)? {
            break;
        }
        py.check_signals()?;
        if slice.is_zero() {
            let text = format!("no broker answers at {endpoint} within {timeout_s:.0} s: does one run there?");
            return Err(error(py, "BrokerLost", &text));
        }
    }
    let (handle, end) = connection.carry().map_err(explain)?;
    let mut machine = greet();
    while let Some(frame) = machine.poll_frame() {
        let _ = end.send(frame);
    }
    let session = Session::with_broker(Tables::of_broker(machine), Link::to_process(end));
    // Everything that is put travels in frames, whatever it takes.
    Ok(ClientCore::with_broker(session, 0, None, u64::MAX, Box::new(move || handle.join())))
}

/// Why a session is over, if it is: the reason as its number on the wire, if it has one, and a text.
#[pyfunction]
pub(crate) fn farewell_of(py: Python<'_>, core: &ClientCore) -> PyResult<Option<(Option<u8>, String)>> {
    core.session.drain(py)?;
    let farewell = core.session.farewell();
    Ok(farewell.map(|farewell| (farewell.reason.map(|reason| reason as u8), farewell.text)))
}

/// Has the broker of this process end once nothing is left to run, whoever submitted it.
#[pyfunction]
pub(crate) fn drain_broker(core: &ClientCore) {
    core.session.command(|tables| tables.machine().map(Client::drain));
}

/// Waits until a session is over; false if the time is over before.
#[pyfunction]
pub(crate) fn wait_over(py: Python<'_>, core: &ClientCore, timeout_s: f64) -> PyResult<bool> {
    let over = core
        .session
        .wait(py, Interest::Any, Deadline::after(Some(timeout_s)), |state| state.tables.is_over().then_some(()))?;
    Ok(over.is_some())
}

/// The keys of a peer: own public, own secret, the broker's public.
pub(crate) fn peer_keys((public, secret, broker): (String, String, String)) -> PyResult<PeerKeys> {
    Ok(PeerKeys { own: own_keys(&public, &secret)?, broker: key(&broker)? })
}

/// Where a broker listens to the network: endpoint, public and secret key, and the public keys with their roles.
pub(super) type NetworkParts = (String, String, String, Vec<(String, String)>);

/// The same as the broker takes it.
pub(super) fn network((endpoint, public, secret, allowed): NetworkParts) -> PyResult<Network> {
    let allowed = allowed.into_iter().map(|(public, roles)| Ok((key(&public)?, roles))).collect::<PyResult<_>>()?;
    Ok(Network { endpoint, keys: own_keys(&public, &secret)?, allowed })
}

fn own_keys(public: &str, secret: &str) -> PyResult<OwnKeys> {
    Ok(OwnKeys { public: key(public)?, secret: key(secret)? })
}

fn key(text: &str) -> PyResult<Key> {
    Key::parse(text)
        .ok_or_else(|| Python::attach(|py| usage_error(py, "a key file is damaged: it has a key that is none")))
}

/// The machine of a client of this process; its HELLO waits to be sent.
pub(super) fn greet() -> Client {
    Client::new(&Hello {
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        version: env!("CARGO_PKG_VERSION"),
        python: &python_version(),
        features: 0,
        worker: 0,
        incarnation: 0,
        pid: std::process::id(),
    })
}

/// The version of this process's Python, such as `3.11.7`.
pub(crate) fn python_version() -> String {
    Python::version_str().split(' ').next().unwrap_or_default().to_owned()
}
