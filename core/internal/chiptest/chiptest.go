// Package chiptest has what core's tests need and a chip does not have: files, and
// a count of allocations. The tests run on hosts, and, with TinyGo, inside an
// emulated chip, where the debugger gives both (docs/design/tinygo.md). No program
// imports it.
package chiptest
