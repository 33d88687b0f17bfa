//! The program as its users run it.
//!
//! | file | what it proves | what it runs on |
//! |---|---|---|
//! | `faults` | a misbehaving worker gets the right verdict | a fake worker and a database written for it |
//! | `audit` | a wrong answer of the kernel, and a wrong row of a vatstore, is found without a worker, and no honest one | copies of the lab's databases, and a stand-in for a node |
//! | `bad_input` | a damaged database or archive gets the right verdict, and the other spans go on | likewise |
//! | `history` | a history that was edited is never verified, an honest one never called broken | likewise, the lab's databases, and imports |
//! | `lab` | every span of a real kernel's database is verified, in each retention | databases that the lab wrote |
//! | `daemon` | nothing that closes goes without a verdict | a stand-in for a node, block by block |
//! | `fates` | whatever happens to node or daemon is survived | likewise |
//! | `alarm` | a divergence raises an alarm | a live kernel, a real worker, a real Prometheus |
//! | `earlier` | a state directory of an earlier version goes on with the present one | files that 0.1.0 wrote |
//! | `edits` | no edit of rows passes for an honest record | copies of made and real databases, edited at random |
//! | `evidence` | a divergence can be replayed and explained from its folder alone | all of the above |
//! | `forged` | evidence that a stranger made does no harm, whichever command opens it | archives and folders made for it |
//! | `words` | what a vat or a worker says adds no line and no control to what we print | a fake worker and vats with such names |
//! | `sandbox` | a worker can do nothing but compute, and a real one misses nothing | programs that try, and real workers |
//! | `limits` | connections, time and memory have limits that hold, and what waits behind them goes on | the daemon and commands, and programs that take too much |
//! | `special_files` | a FIFO, a device or a link in place of a file is an error, never a wait | all commands, and the daemon |
//! | `strangers` | no program runs that came with a database, evidence or a directory of others | a program that leaves a mark when it runs |
//! | `service` | the unit's filter lets through what is needed | real workers, under that filter |
//! | `report` | the page that tells a divergence is whole, and reads well | a real headless browser (`browser`) |
//! | `export` | tools of others run what is exported | `replay.js` of the real package |
//! | `heap` | heap images are read whole, and what differs between two is named | images of all the lab's databases, and some made on purpose |
//! | `own` | what spanwatch writes is its own: permissions, owners, links, temporary directories | the daemon and the commands |
//! | `package` | completions are what a shell reads | bash |
//! | `recorder` | a flight recorder gives what a node pruned, and a damaged one no wrong verdict | a database of the lab with its recorder |
//! | `rows` | old rows that change, and breaks in histories, raise an alarm of their own; what a node does never raises one | a stand-in for a node, the lab's databases, a live kernel |
//! | `arguments` | flags, exit codes, variables and the log do as other programs' do | the program itself, and the daemon |
//! | `compared` | a plan comes before the spans, and several workers are compared | a fake worker and a database written for it |
//! | `messages` | what a message says is what was found | files, folders and databases that are not as they should be |
//! | `tidy` | the modules import one another without a cycle, functions are short, no test sleeps, prose is plain, a test that a page names is there | the source itself |
//! | `mutations` | no change to a real record goes unnoticed | copies of one of those |

#![expect(clippy::expect_used, reason = "a test's helper fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "the tests write the databases that the program reads")]

mod alarm;
mod arguments;
mod audit;
mod bad_input;
mod bench;
mod beside;
mod browser;
mod compared;
mod daemon;
mod earlier;
mod edits;
mod evidence;
mod export;
mod fates;
mod faults;
mod forged;
mod heap;
mod history;
mod lab;
mod limits;
mod messages;
mod mutations;
mod own;
mod package;
mod recorder;
mod report;
mod rows;
mod run;
mod sandbox;
mod service;
mod skip;
mod special_files;
mod strangers;
mod synthetic;
mod tidy;
mod wait;
mod words;

#[path = "../fake_worker/model.rs"]
#[expect(dead_code, reason = "the worker itself uses more of it than the tests do")]
mod model;
