package fleet

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"
	"github.com/expr-lang/expr/vm"
)

// Bounds of a filter: it runs for every device of a product, each time a phase's
// devices are counted.
const (
	MaxFilter      = 1024 // bytes of text
	maxFilterNodes = 200  // of its tree: the work for one device is a small multiple of it
	maxTag         = 64   // bytes of a tag, and of an attribute's name and value
	MaxTags        = 32   // tags, and attributes, of one device
)

// FilterEnv is what a filter may look at: facts of one device, and nothing else,
// so that the same device gives the same answer everywhere and at any time. A
// fact that is not known is "" or 0. docs/design/rollouts.md lists them.
type FilterEnv struct {
	ID          string            `expr:"id"`
	Product     string            `expr:"product"`
	Tags        []string          `expr:"tags"`
	Attributes  map[string]string `expr:"attributes"`
	Hardware    string            `expr:"hardware"`
	Version     string            `expr:"version"`
	Epoch       int               `expr:"epoch"` // of what it confirmed last, as the next two
	Sequence    int               `expr:"sequence"`
	Security    int               `expr:"security_version"`
	ListVersion int               `expr:"list_version"` // of the key list that it holds
	Slots       int               `expr:"slots"`
	RunningSlot int               `expr:"running_slot"`
	SlotBytes   int               `expr:"slot_bytes"` // of the slot that it writes to
	Chip        int               `expr:"chip"`       // ESP-IDF's number
	Assurance   string            `expr:"assurance"`
	Wire        string            `expr:"wire"`     // the strongest that it spoke
	Failures    int               `expr:"failures"` // in a row
	Image       string            `expr:"image"`    // SHA-256 of what it confirmed and runs, hex
	// What its chip and bootloader have.
	Rollback        bool `expr:"rollback"`
	SecureBoot      bool `expr:"secure_boot"`
	FlashEncryption bool `expr:"flash_encryption"`
	SecureVersion   int  `expr:"secure_version"`
	// How it is doing.
	FreeRAM    int    `expr:"free_ram"` // bytes
	BootReason string `expr:"boot_reason"`
	Battery    int    `expr:"battery"` // percent
	Signal     int    `expr:"signal"`  // dBm

	VersionOlder func(string) bool `expr:"older"` // than that version, by its numbers
}

// EnvOf is the environment of a device; a is what it asked last, nil where it did not.
func EnvOf(d *Device, a *NativeAsk, product string) *FilterEnv {
	e := &FilterEnv{ID: d.ID, Product: product, Tags: d.Tags, Attributes: d.Attributes, Hardware: d.Hardware, Version: d.RunningVersion,
		Epoch: int(d.Epoch), Sequence: int(d.Sequence), Security: int(d.SecurityVersion), ListVersion: int(d.ListVersion), Slots: d.Slots, RunningSlot: d.RunningSlot,
		Assurance: string(d.Assurance), Wire: string(d.StrongestWire), Failures: d.Failures,
		FreeRAM: int(d.Health.FreeRAM), BootReason: d.Health.BootReason, Battery: d.Health.Battery, Signal: d.Health.Signal}
	if a != nil {
		e.Chip, e.Image = int(a.Chip), hex.EncodeToString(a.Image)
		e.Rollback, e.SecureBoot, e.FlashEncryption = a.Rollback, a.SecureBoot, a.FlashEncryption
		if a.SecureVersion != nil {
			e.SecureVersion = int(*a.SecureVersion)
		}
		if slot, ok := a.Target(); ok {
			e.SlotBytes = int(a.Slots[slot])
		}
	}
	e.VersionOlder = func(than string) bool { return d.RunningVersion != "" && CompareVersions(d.RunningVersion, than) < 0 }
	return e
}

// Filter is a checked expression over a device. It does not change and may be used
// concurrently. The zero filter takes every device.
type Filter struct {
	text    string
	program *vm.Program
}

func (f Filter) String() string { return f.text }

// FilterError says where a filter is wrong.
type FilterError struct {
	Text   string
	Column int // of the character, from 1
	Reason string
}

func (e *FilterError) Error() string { return fmt.Sprintf("filter: column %d: %s", e.Column, e.Reason) }

// Caret is the text with a caret below the mistake, for a terminal.
func (e *FilterError) Caret() string {
	return e.Text + "\n" + strings.Repeat(" ", max(e.Column-1, 0)) + "^"
}

func (e *FilterError) wrapped() error {
	return &Error{Code: CodeInvalid, Message: e.Error(), Err: e,
		Hint: "write it like hardware == \"r2\" and \"beta\" in tags; docs/design/rollouts.md lists what it may look at"}
}

// Operators and functions that a filter may use. What is not here is refused: what
// loops, makes long texts or looks at the clock.
var (
	filterBinary   = []string{"and", "&&", "or", "||", "==", "!=", "<", "<=", ">", ">=", "in", "contains", "startsWith", "endsWith", "matches", "??"}
	filterUnary    = []string{"not", "!", "-"}
	filterBuiltins = []string{"len", "lower", "upper"}
	filterCalls    = []string{"older"}
)

// ParseFilter checks an expression. "" takes every device. Errors are CodeInvalid,
// with a *FilterError inside.
func ParseFilter(text string) (Filter, error) {
	text = strings.TrimSpace(text)
	if text == "" || text == "true" {
		return Filter{text: text}, nil
	}
	wrong := func(column int, format string, args ...any) (Filter, error) {
		return Filter{}, (&FilterError{Text: text, Column: column, Reason: fmt.Sprintf(format, args...)}).wrapped()
	}
	if len(text) > MaxFilter {
		return wrong(MaxFilter+1, "it has %d bytes, at most %d are allowed", len(text), MaxFilter)
	}
	for i, r := range []rune(text) {
		if r < ' ' || r == '\uFFFD' || r == 0x7f {
			return wrong(i+1, "a character that can't be printed")
		}
	}
	tree, err := parser.Parse(text)
	if err != nil {
		column, reason := exprError(err)
		return wrong(column, "%s", reason)
	}
	v := &filterVisitor{}
	ast.Walk(&tree.Node, v)
	if v.wrong != nil {
		v.wrong.Text = text
		return Filter{}, v.wrong.wrapped()
	}
	if v.nodes > maxFilterNodes {
		return wrong(1, "it has %d parts, at most %d are allowed", v.nodes, maxFilterNodes)
	}
	program, err := expr.Compile(text, expr.Env(&FilterEnv{}), expr.AsBool(), expr.MaxNodes(2*maxFilterNodes))
	if err != nil {
		column, reason := exprError(err)
		return wrong(column, "%s", reason)
	}
	f := Filter{text: text, program: program}
	// What the checker lets pass and fails for some device would fail in the middle of a rollout.
	if _, err := f.run(EnvOf(&Device{}, nil, "")); err != nil {
		column, reason := exprError(err)
		return wrong(column, "%s", reason)
	}
	return f, nil
}

// exprError is the library's mistake without its drawing. Columns count from 1.
func exprError(err error) (column int, reason string) {
	var e *file.Error
	if errors.As(err, &e) {
		return e.Column + 1, CleanText(e.Message, MaxText)
	}
	return 1, CleanText(err.Error(), MaxText)
}

// filterVisitor lets pass what the lists name.
type filterVisitor struct {
	nodes int
	wrong *FilterError
}

// Visit implements ast.Visitor.
func (v *filterVisitor) Visit(n *ast.Node) {
	v.nodes++
	refuse := func(at ast.Node, format string, args ...any) {
		column := at.Location().From + 1
		if v.wrong == nil || column < v.wrong.Column {
			v.wrong = &FilterError{Column: column, Reason: fmt.Sprintf(format, args...)}
		}
	}
	switch x := (*n).(type) {
	case *ast.NilNode, *ast.IdentifierNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.StringNode, *ast.ConstantNode, *ast.ArrayNode, *ast.ChainNode:
	case *ast.UnaryNode:
		if !slices.Contains(filterUnary, x.Operator) {
			refuse(x, "operator %s is not allowed in a filter", x.Operator)
		}
	case *ast.BinaryNode:
		if !slices.Contains(filterBinary, x.Operator) {
			refuse(x, "operator %s is not allowed in a filter", x.Operator)
		}
		if _, constant := x.Right.(*ast.StringNode); x.Operator == "matches" && !constant {
			refuse(x.Right, "the pattern after matches is not a text in quotes")
		}
	case *ast.MemberNode:
		if id, ok := x.Node.(*ast.IdentifierNode); !ok || id.Value != "attributes" || x.Method {
			refuse(x, "only attributes have members: write attributes.name")
		}
	case *ast.BuiltinNode:
		if !slices.Contains(filterBuiltins, x.Name) {
			refuse(x, "function %s is not allowed in a filter: there are %s", x.Name, strings.Join(append(filterCalls, filterBuiltins...), ", "))
		}
	case *ast.CallNode:
		if id, ok := x.Callee.(*ast.IdentifierNode); !ok || !slices.Contains(filterCalls, id.Value) {
			refuse(x, "there is no such function: there are %s", strings.Join(append(filterCalls, filterBuiltins...), ", "))
		}
	default:
		refuse(x, "this is not allowed in a filter")
	}
}

func (f Filter) run(e *FilterEnv) (bool, error) {
	if f.program == nil {
		return true, nil
	}
	return f.value(e)
}

func (f Filter) value(e *FilterEnv) (bool, error) {
	out, err := expr.Run(f.program, e)
	if err != nil {
		return false, err
	}
	yes, ok := out.(bool)
	if !ok {
		return false, errors.New("the filter's value is neither true nor false")
	}
	return yes, nil
}

// Match says whether the filter takes the device. One that fails for a device does
// not take it: err says why, for those who ask.
func (f Filter) Match(e *FilterEnv) (bool, error) { return f.run(e) }

// facts are what filters see of one device: made when the first one asks, as most
// rollouts are for everybody.
type facts struct {
	d       *Device
	ask     *NativeAsk
	product string
	env     *FilterEnv
}

func (x *facts) match(f Filter) (bool, error) {
	if f.program == nil {
		return true, nil
	}
	if x.env == nil {
		x.env = EnvOf(x.d, x.ask, x.product)
	}
	return f.value(x.env)
}

// CompareVersions orders version texts as people do: runs of digits by their value,
// everything else by its bytes; a text goes before the one that it begins.
func CompareVersions(a, b string) int {
	for a != "" && b != "" {
		if digit(a[0]) && digit(b[0]) {
			x, y := number(&a), number(&b)
			if len(x) != len(y) {
				return sign(len(x) - len(y))
			}
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
			continue
		}
		if a[0] != b[0] {
			return sign(int(a[0]) - int(b[0]))
		}
		a, b = a[1:], b[1:]
	}
	return sign(len(a) - len(b))
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// number takes a run of digits off the text, without leading zeros.
func number(s *string) string {
	n := 0
	for n < len(*s) && digit((*s)[n]) {
		n++
	}
	run := strings.TrimLeft((*s)[:n], "0")
	*s = (*s)[n:]
	return run
}

func sign(n int) int { return max(min(n, 1), -1) }

// ValidateTags checks the tags and attributes of a device.
func ValidateTags(tags []string, attributes map[string]string) error {
	if len(tags) > MaxTags || len(attributes) > MaxTags {
		return Errorf(CodeInvalid, "a device has at most %d tags and %d attributes", MaxTags, MaxTags)
	}
	for _, t := range tags {
		if err := validTag("tag", t); err != nil {
			return err
		}
	}
	for k, v := range attributes {
		if err := validTag("attribute", k); err != nil {
			return err
		}
		if CleanText(v, maxTag) != v {
			return Errorf(CodeInvalid, "attribute %s has a value of more than %d bytes, or one that can't be printed", k, maxTag)
		}
	}
	if z := attributes[ZoneAttribute]; z != "" {
		if _, err := LoadZone(z); err != nil {
			return &Error{Code: CodeInvalid, Message: fmt.Sprintf("attribute %s is %q, which is no time zone", ZoneAttribute, z), Hint: "write it like Europe/Berlin"}
		}
	}
	return nil
}

func validTag(what, s string) error {
	if s == "" || len(s) > maxTag {
		return Errorf(CodeInvalid, "a %s has 1 to %d bytes", what, maxTag)
	}
	for i := range len(s) {
		if c := s[i]; !digit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && strings.IndexByte("._-", c) < 0 {
			return &Error{Code: CodeInvalid, Message: fmt.Sprintf("%s %q has %q at byte %d", what, s, s[i:i+1], i), Hint: "letters, digits, '.', '_' and '-' are allowed"}
		}
	}
	return nil
}
