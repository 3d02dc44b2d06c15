//! Pickles: Python's own C pickler, with cloudpickle where that cannot do it, and nodes that are met on the way.
//!
//! While an argument is pickled, this thread's `CITING` holds the citations of the task; a node that the pickler meets
//! reduces to `_dep(k)` and is entered there. While such a pickle is loaded, `CITED` holds the results it may ask for.
use std::cell::RefCell;

use pyo3::exceptions::{PyException, PyLookupError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList};

use super::large::{LARGE_BYTES_MIN, large_buffer};
use super::main_names::names_main;
use super::out_of_band::has_arrays;
use super::{Citations, External, ExternalId};
use crate::client::ExternalRef;
use crate::errors::{graph_error, is_usage_error};
use crate::node::{Node, REMEDY, foreign};
use crate::nodes::Nodes;

/// What an encoding thread keeps where the pickler's callbacks can find it.
struct Citing {
    /// Address of the graph whose nodes may be cited; 0 for a call, which has none.
    home: usize,
    cited: Citations,
    /// Numbers cited by the pickle under construction.
    used: Vec<u32>,
    /// Buffers that stay outside it, in its order.
    large: Vec<External>,
    /// Whether nodes of any graph pass, because the pickle is thrown away.
    lenient: bool,
}

thread_local! {
    static CITING: RefCell<Option<Citing>> = const { RefCell::new(None) };
    static CITED: RefCell<Vec<(u32, Py<PyAny>)>> = const { RefCell::new(Vec::new()) };
}

/// Puts a state in the thread's place, runs, and puts back what was there: encodings nest when a `__reduce__` builds
/// another graph.
fn with_citing<R>(state: Option<Citing>, run: impl FnOnce() -> R) -> (R, Option<Citing>) {
    struct Restore(Option<Citing>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CITING.with(|place| *place.borrow_mut() = self.0.take());
        }
    }
    let restore = Restore(CITING.with(|place| place.replace(state)));
    let answer = run();
    let state = CITING.with(|place| place.borrow_mut().take());
    drop(restore);
    (answer, state)
}

/// Whose `dumps` comes first: the C pickler's, or one that keeps all arrays out of band.
pub(super) const PLAIN: &str = "_pickle";
pub(super) const OUT_OF_BAND: &str = "headrace.out_of_band";
/// The same for arguments.
const ARGUMENT_OUT_OF_BAND: &str = "headrace.out_of_band, arguments";
/// Whose `dumps` pickles arguments by value, and results.
const ARGUMENTS_BY_VALUE: &str = "headrace.dynamic_code";
const RESULTS_BY_VALUE: &str = "headrace.by_value";

/// Pickles `value` by the module `first`, or by `by_value` if that fails or if its pickle names something of `__main__`, which
/// does not exist elsewhere.
fn dumps<'py>(
    value: &Bound<'py, PyAny>,
    (first, by_value): (&'static str, &str),
    keywords: Option<&Bound<'py, PyDict>>,
    restart: impl Fn(),
) -> PyResult<Bound<'py, PyBytes>> {
    static PLAIN_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static OUT_OF_BAND_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static ARGUMENT_DUMPS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = value.py();
    let (place, module, name) = match first {
        PLAIN => (&PLAIN_DUMPS, PLAIN, "dumps"),
        OUT_OF_BAND => (&OUT_OF_BAND_DUMPS, OUT_OF_BAND, "dumps"),
        _ => (&ARGUMENT_DUMPS, OUT_OF_BAND, "dumps_argument"),
    };
    match place.import(py, module, name)?.call((value, 5), keywords) {
        Ok(pickle) => {
            let pickle = pickle.cast_into::<PyBytes>()?;
            let may = pickle.contains(intern!(py, "__main__").call_method0("encode")?)?;
            if !may || !names_main(pickle.as_bytes()) {
                return Ok(pickle);
            }
        }
        Err(error) if !error.is_instance_of::<PyException>(py) || is_usage_error(py, &error) => return Err(error),
        Err(_) => {}
    }
    restart();
    let dumps = py.import(by_value)?.getattr(intern!(py, "dumps"))?;
    Ok(dumps.call((value, 5), keywords)?.cast_into::<PyBytes>()?)
}

/// Pickles a result, by the module `first` if that can: a node in it is an error.
pub(super) fn dumps_result<'py>(
    value: &Bound<'py, PyAny>,
    first: &'static str,
    keywords: Option<&Bound<'py, PyDict>>,
    restart: impl Fn(),
) -> PyResult<Bound<'py, PyBytes>> {
    with_citing(None, || dumps(value, (first, RESULTS_BY_VALUE), keywords, restart)).0
}

/// Pickles a result in one piece.
pub(super) fn dumps_plain<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    dumps_result(value, PLAIN, None, || {})
}

/// A pickled argument.
pub(super) struct Pickled<'py> {
    pub(super) pickle: Bound<'py, PyBytes>,
    /// The numbers of what it cites, each once.
    pub(super) used: Vec<u32>,
    /// The large buffers that it has not got, in the order in which it asks for them.
    pub(super) large: Vec<External>,
}

/// Pickles an argument, without its large buffers; what it cites is entered in `cited`. A long pickle is made once more where
/// some arrays of numpy may lie in it that only our own reducers leave out.
pub(super) fn dumps_citing<'py>(
    value: &Bound<'py, PyAny>,
    home: usize,
    cited: &mut Citations,
) -> PyResult<Pickled<'py>> {
    let mark = cited.len();
    let cited_before = std::mem::take(cited);
    let state = Citing { home, cited: cited_before, used: Vec::new(), large: Vec::new(), lenient: false };
    let restart = || {
        CITING.with(|place| {
            if let Some(citing) = place.borrow_mut().as_mut() {
                citing.cited.truncate(mark);
                citing.used.clear();
                std::mem::take(&mut citing.large)
            } else {
                Vec::new()
            }
        });
    };
    let keywords = Some(argument_keywords(value.py())?);
    let pickled = || {
        let plain = dumps(value, (PLAIN, ARGUMENTS_BY_VALUE), keywords, restart)?;
        if plain.as_bytes().len() < LARGE_BYTES_MIN || !has_arrays(value.py())? {
            return Ok(plain);
        }
        restart();
        dumps(value, (ARGUMENT_OUT_OF_BAND, ARGUMENTS_BY_VALUE), keywords, restart)
    };
    let (pickle, state) = with_citing(Some(state), pickled);
    let (mut used, mut large) = (Vec::new(), Vec::new());
    if let Some(state) = state {
        *cited = state.cited;
        (used, large) = (state.used, state.large);
    }
    used.sort_unstable();
    used.dedup();
    Ok(Pickled { pickle: pickle?, used, large })
}

/// Keywords that leave the large buffers out of a pickle.
fn argument_keywords(py: Python<'_>) -> PyResult<&Bound<'_, PyDict>> {
    static KEYWORDS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();
    let keywords = KEYWORDS.get_or_try_init(py, || {
        let keywords = PyDict::new(py);
        keywords.set_item(intern!(py, "buffer_callback"), wrap_pyfunction!(stays_in_pickle, py)?)?;
        PyResult::Ok(keywords.unbind())
    })?;
    Ok(keywords.bind(py))
}

/// Whether a buffer that the pickler of an argument has come upon stays in the pickle. One that does not is noted.
#[pyfunction]
fn stays_in_pickle(buffer: &Bound<'_, PyAny>) -> bool {
    let Some(large) = large_buffer(buffer) else { return true };
    CITING.with(|place| match place.borrow_mut().as_mut() {
        Some(citing) if !citing.lenient => citing.large.push(large),
        _ => {}
    });
    false
}

/// Loads a pickle that may ask for the results in `cited`, by their numbers.
pub(super) fn loads<'py>(py: Python<'py>, pickle: &[u8], cited: Vec<(u32, Py<PyAny>)>) -> PyResult<Bound<'py, PyAny>> {
    loads_with(PyBytes::new(py, pickle).as_any(), None, cited)
}

/// Loads a pickle whose buffers are beside it.
pub(super) fn loads_with<'py>(
    pickle: &Bound<'py, PyAny>,
    buffers: Option<&Bound<'py, PyList>>,
    cited: Vec<(u32, Py<PyAny>)>,
) -> PyResult<Bound<'py, PyAny>> {
    static LOADS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    struct Restore(Vec<(u32, Py<PyAny>)>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let inner = CITED.with(|place| place.replace(std::mem::take(&mut self.0)));
            drop(inner);
        }
    }
    let py = pickle.py();
    let loads = LOADS.import(py, "_pickle", "loads")?;
    let keywords = match buffers {
        None => None,
        Some(buffers) => Some([(intern!(py, "buffers"), buffers)].into_py_dict(py)?),
    };
    let _restore = Restore(CITED.with(|place| place.replace(cited)));
    loads.call((pickle,), keywords.as_ref())
}

/// Stands for the result of predecessor `k` inside a pickled argument.
#[pyfunction]
pub(crate) fn _dep(py: Python<'_>, k: u32) -> PyResult<Py<PyAny>> {
    CITED
        .with(|place| place.borrow().iter().find(|(number, _)| *number == k).map(|(_, value)| value.clone_ref(py)))
        .ok_or_else(|| {
            PyLookupError::new_err(format!("this pickle is an argument of a task; its input {k} is not here"))
        })
}

fn dep_call<'py>(py: Python<'py>, k: u32) -> PyResult<Bound<'py, PyAny>> {
    static DEP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let dep = DEP.import(py, "headrace._core", "_dep")?;
    Ok((dep, (k,)).into_pyobject(py)?.into_any())
}

/// What a node's `__reduce__` answers.
pub(crate) fn reduce_node<'py>(py: Python<'py>, node: &Node) -> PyResult<Bound<'py, PyAny>> {
    let k = enter(py, node.graph_address(), |cited| cited.cite(node.index()), || node.describe())?;
    dep_call(py, k)
}

/// Enters one citation in this thread's state, if `home` is the graph that is being built.
fn enter(
    py: Python<'_>,
    home: usize,
    cite: impl FnOnce(&mut Citations) -> u32,
    describe: impl FnOnce() -> String,
) -> PyResult<u32> {
    let outcome = CITING.with(|place| match place.borrow_mut().as_mut() {
        Some(citing) if citing.lenient => Some(Ok(0)),
        Some(citing) if citing.home == home => {
            let k = cite(&mut citing.cited);
            citing.used.push(k);
            Some(Ok(k))
        }
        Some(_) => Some(Err(())),
        None => None,
    });
    match outcome {
        Some(Ok(k)) => Ok(k),
        Some(Err(())) => Err(foreign(py, &describe())),
        None => Err(graph_error(py, &format!("{} cannot be pickled outside its graph; {REMEDY}", describe()))),
    }
}

/// What the `__reduce__` of a sequence of nodes answers: a list of their results.
pub(crate) fn reduce_nodes<'py>(nodes: &Bound<'py, Nodes>) -> PyResult<Bound<'py, PyAny>> {
    let py = nodes.py();
    let list = PyList::new(py, nodes.get().__iter__(py)?.collect::<PyResult<Vec<_>>>()?)?;
    Ok((py.get_type::<PyList>(), (list,)).into_pyobject(py)?.into_any())
}

/// Reads the result that `value` stands for, if it is a future or ref.
pub(super) fn as_external(value: &Bound<'_, PyAny>) -> PyResult<Option<External>> {
    if is_external(value) { read_external(value).map(Some) } else { Ok(None) }
}

/// Whether `value` is a future or ref by its type, which runs no code of anybody's.
pub(super) fn is_external(value: &Bound<'_, PyAny>) -> bool {
    value.is_instance_of::<ExternalRef>()
}

fn read_external(value: &Bound<'_, PyAny>) -> PyResult<External> {
    let py = value.py();
    let id = ExternalId::Result {
        session: value.getattr(intern!(py, "session"))?.extract()?,
        run: value.getattr(intern!(py, "run"))?.extract()?,
        index: value.getattr(intern!(py, "index"))?.extract()?,
    };
    Ok(External { id, object: value.clone().unbind() })
}

/// What the `__reduce__` of a future or ref answers while it is part of an argument; an error anywhere else. Futures and
/// refs are instances of `_core.ExternalRef` with integer attributes `session`, `run` and `index`.
#[pyfunction]
pub(crate) fn cite<'py>(reference: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = reference.py();
    let external = read_external(reference)?;
    let k = CITING.with(|place| {
        place.borrow_mut().as_mut().map(|citing| {
            if citing.lenient {
                return 0;
            }
            let k = citing.cited.cite_external(external);
            citing.used.push(k);
            k
        })
    });
    match k {
        Some(k) => dep_call(py, k),
        None => Err(graph_error(
            py,
            &format!(
                "a {} stands for a result and cannot be pickled by itself; pass it as an argument of a task or call",
                reference.get_type().name()?
            ),
        )),
    }
}

/// Pickles `value` as an argument would be and throws the pickle away; the answer is the error, if there is one.
#[pyfunction]
pub(crate) fn try_pickle(value: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    let cited = Citations::default();
    let state = Citing { home: 0, cited, used: Vec::new(), large: Vec::new(), lenient: true };
    let keywords = argument_keywords(value.py()).ok();
    let (pickle, _) = with_citing(Some(state), || dumps(value, (PLAIN, ARGUMENTS_BY_VALUE), keywords, || {}));
    pickle.err().map(|error| error.into_value(value.py()).into_any())
}
