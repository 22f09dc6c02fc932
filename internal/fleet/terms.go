package fleet

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Confirm is what a product asks of the trial in which an image proves itself.
// Frozen: stored as text.
type Confirm string

const (
	// ConfirmAny: what a device calls confirmed is, also where it confirmed at once.
	ConfirmAny Confirm = "any"
	// ConfirmTrial: only devices are served whose bootloader goes back by itself, as they say:
	// with one that does not, an image that crashes before the updater starts stays.
	ConfirmTrial Confirm = "trial"
	// ConfirmContact: that, and only releases are taken whose manifest wants an answer of the
	// server on trial before they are confirmed.
	ConfirmContact Confirm = "contact"
)

// MaxSigners of a product's terms, and sizes of chunks; MaxHardware revisions of a board.
const (
	MaxSigners  = 16
	MaxHardware = 64
)

// Terms are what an operator asks for a product beside what key lists say: they
// only ever ask for more. They hold for a push and for each decision, so that what
// was published under milder ones is offered no more. The zero Terms ask nothing.
//
// Rules, numbered for the tests:
//
//	T1 assurance  the device's identity is known as well as is asked for
//	T2 wire       the device believes releases by what is asked for, or better
//	T3 trial      its bootloader goes back by itself, where that is asked for
//	T4 signer     as many of the named keys signed the release as its threshold asks for
//	T5 confirm    its manifest wants contact, where that is asked for
//	T6 chunks     its streams, or chunks, have one of the named sizes
//	T7 hardware   its manifest names hardware of the product alone; of a push only, as a
//	              device takes nothing for other hardware than its own
type Terms struct {
	Signers   []string  `json:"signers,omitempty"`   // names of release keys, 16 hex digits; none: any that the key list names
	Assurance Assurance `json:"assurance,omitempty"` // least; "": none
	Wire      Wire      `json:"wire,omitempty"`      // weakest; "": any
	Confirm   Confirm   `json:"confirm,omitempty"`   // "": any
	Chunks    []int     `json:"chunks,omitempty"`    // bytes, the default first; none: any
	Hardware  []string  `json:"hardware,omitempty"`  // that the product has, as Release.Hardware names it; none: any
}

// Checked is what intake found when it checked a release's manifest: terms are
// judged by it.
type Checked struct {
	Signers   string `json:"signers"`   // names of the release keys that signed, a space between
	Threshold int    `json:"threshold"` // how many had to
	Contact   bool   `json:"contact"`   // it wants an answer of the server before it is confirmed
}

// TermsChange is an operator's word on terms; nil leaves what is.
type TermsChange struct {
	Signers   *[]string
	Assurance *Assurance
	Wire      *Wire
	Confirm   *Confirm
	Chunks    *[]int
	Hardware  *[]string
}

// Empty says that nothing is said.
func (c TermsChange) Empty() bool { return c == TermsChange{} }

// Apply is what becomes of terms. Errors: CodeInvalid.
func (c TermsChange) Apply(t Terms) (Terms, error) {
	if c.Signers != nil {
		t.Signers = slices.Clone(*c.Signers)
	}
	if c.Assurance != nil {
		t.Assurance = *c.Assurance
	}
	if c.Wire != nil {
		t.Wire = *c.Wire
	}
	if c.Confirm != nil {
		t.Confirm = *c.Confirm
	}
	if c.Chunks != nil {
		t.Chunks = slices.Clone(*c.Chunks)
	}
	if c.Hardware != nil {
		t.Hardware = slices.Clone(*c.Hardware)
	}
	// What asks nothing is not stored: zero terms are equal.
	if t.Assurance == AssuranceNone {
		t.Assurance = ""
	}
	if t.Wire == WireV1 {
		t.Wire = WireNone
	}
	if t.Confirm == ConfirmAny {
		t.Confirm = ""
	}
	return t, t.Validate()
}

// Validate says what is wrong with terms.
func (t Terms) Validate() error {
	if len(t.Signers) > MaxSigners || len(t.Chunks) > MaxSigners || len(t.Hardware) > MaxHardware {
		return Errorf(CodeInvalid, "terms name %d signers, %d sizes of chunks and %d names of hardware at most", MaxSigners, MaxSigners, MaxHardware)
	}
	for i, h := range t.Hardware {
		if h == "" || len(h) > maxTag || CleanText(h, maxTag) != h || strings.ContainsAny(h, ", ") {
			return &Error{Code: CodeInvalid, Message: fmt.Sprintf("%q is no name of hardware", CleanText(h, MaxText)), Hint: "write it like r2; what is no text, or has commas or spaces, in hex digits"}
		}
		if slices.Contains(t.Hardware[:i], h) {
			return Errorf(CodeInvalid, "hardware %s is named twice", h)
		}
	}
	for i, s := range t.Signers {
		if b, err := hex.DecodeString(s); err != nil || len(b) != 8 || s != strings.ToLower(s) {
			return &Error{Code: CodeInvalid, Message: fmt.Sprintf("signer %q is no name of a key", CleanText(s, MaxText)), Hint: "it has 16 hex digits; 'runnel keys list' shows them"}
		}
		if slices.Contains(t.Signers[:i], s) {
			return Errorf(CodeInvalid, "signer %s is named twice", s)
		}
	}
	for i, n := range t.Chunks {
		if _, err := CheckChunkSize(n); err != nil {
			return err
		}
		if slices.Contains(t.Chunks[:i], n) {
			return Errorf(CodeInvalid, "a chunk size of %d bytes is named twice", n)
		}
	}
	switch t.Assurance {
	case "", AssuranceShared, AssuranceOwn:
	default:
		return Errorf(CodeInvalid, "least assurance %q is not none, shared or own", CleanText(string(t.Assurance), MaxText))
	}
	switch t.Wire {
	case WireNone, WireMACOnly, WireSigned:
	default:
		return Errorf(CodeInvalid, "weakest wire %q is not v1, mac-only or signed", CleanText(string(t.Wire), MaxText))
	}
	switch t.Confirm {
	case "", ConfirmTrial, ConfirmContact:
	default:
		return Errorf(CodeInvalid, "confirm policy %q is not any, trial or contact", CleanText(string(t.Confirm), MaxText))
	}
	return nil
}

// WeakerThan orders assurances.
func (a Assurance) WeakerThan(than Assurance) bool { return a.rank() < than.rank() }

func (a Assurance) rank() int {
	switch a {
	case AssuranceShared:
		return 1
	case AssuranceOwn:
		return 2
	}
	return 0
}

// DefaultChunk is the chunk size of an image whose publisher says none, bytes.
func (t Terms) DefaultChunk() int {
	if len(t.Chunks) > 0 {
		return t.Chunks[0]
	}
	return DefaultChunkSize
}

// allows says whether chunks of that size may be served. T6
func (t Terms) allows(chunk int) bool {
	return len(t.Chunks) == 0 || slices.Contains(t.Chunks, chunk)
}

// release is why a release is not taken: the rule and the reason; "" each: it is. T4, T5
func (t Terms) release(r *Release) (rule, why string) {
	if len(t.Signers) > 0 {
		asks := fmt.Sprintf("%s takes what %s signed", r.Product, strings.Join(t.Signers, ", "))
		signers := strings.Fields(r.Checked.Signers)
		by := strings.Join(signers, ", ")
		switch n := t.named(signers); {
		case !r.Signed():
			return "signer", fmt.Sprintf("%s, and %s is unsigned", asks, r.Version)
		case len(signers) == 0:
			return "signer", fmt.Sprintf("%s, and who signed %s was not noted when it was pushed: push it again", asks, r.Version)
		case n == 0:
			return "signer", fmt.Sprintf("%s, and %s signed %s", asks, by, r.Version)
		case n < r.Checked.Threshold:
			return "signer", fmt.Sprintf("%s, %d of them, and %s signed %s", asks, r.Checked.Threshold, by, r.Version)
		}
	}
	if t.Confirm == ConfirmContact && !r.Checked.Contact {
		return "confirm", fmt.Sprintf("%s takes releases that want contact before they are confirmed, and %s does not", r.Product, r.Version)
	}
	return "", ""
}

// named is how many of the signers the terms name.
func (t Terms) named(signers []string) (n int) {
	for _, s := range signers {
		if slices.Contains(t.Signers, s) {
			n++
		}
	}
	return n
}

// Refuse is why a release can't be published under the terms of its product; nil:
// it can. chunks are the sizes of all of its streams, bytes. Errors: CodeForbidden.
func (t Terms) Refuse(r Release, chunks ...int) error {
	refuse := func(why, hint string) error {
		return &Error{Code: CodeForbidden, Message: CleanText(why, MaxText), Hint: hint}
	}
	switch rule, why := t.release(&r); rule {
	case "signer":
		return refuse(why, "have one of those keys sign it ('runnel sign --add'), or change who may: 'runnel products set "+r.Product+" --signer KEY'")
	case "confirm":
		return refuse(why, "sign it without --no-contact, or change that: 'runnel products set "+r.Product+" --confirm trial'")
	}
	if len(t.Hardware) > 0 && r.Hardware != "" { // T7
		for name := range strings.SplitSeq(r.Hardware, ", ") {
			if !slices.Contains(t.Hardware, name) {
				return refuse(fmt.Sprintf("%s is for hardware %s, and %s has %s", r.Version, name, r.Product, strings.Join(t.Hardware, ", ")),
					"sign it with --hardware for what there is, or name it: 'runnel products set "+r.Product+" --hardware NAME'")
			}
		}
	}
	for _, n := range chunks {
		if !t.allows(n) {
			return refuse(fmt.Sprintf("%s takes chunks of %s bytes, and %s has some of %d", r.Product, t.ChunksText(), r.Version, n),
				fmt.Sprintf("give --chunk-size %d, or change what the product takes: 'runnel products set %s --chunk-sizes LIST'", t.DefaultChunk(), r.Product))
		}
	}
	return nil
}

// ChunksText is the sizes for people.
func (t Terms) ChunksText() string {
	list := make([]string, len(t.Chunks))
	for i, n := range t.Chunks {
		list[i] = fmt.Sprint(n)
	}
	return strings.Join(list, ", ")
}

// device is why a device is not served: the rule and the reason; "" each: it is.
// rollback: its bootloader goes back by itself, as it says. T1, T2, T3
func (t Terms) device(product string, a Assurance, w Wire, rollback bool) (rule, why string) {
	switch {
	case a.WeakerThan(t.Assurance):
		return "assurance", fmt.Sprintf("%s serves devices whose assurance is %s at least, and this one's is %s", product, t.Assurance, a)
	case w.WeakerThan(t.Wire):
		return "wire", fmt.Sprintf("%s serves devices that speak %s at least, and this one speaks %s", product, t.Wire, w)
	case t.Confirm != "" && !rollback:
		return "trial", fmt.Sprintf("%s serves devices whose bootloader goes back by itself, and this one does not say so", product)
	}
	return "", ""
}

// judge looks at the device by the terms of its product, and notes what they said.
func (t Terms) judge(product string, a Assurance, w Wire, rollback bool, to *Trace) (why string) {
	rule, why := t.device(product, a, w, rollback)
	if rule != "" {
		to.add(0, rule, RuleStop, "%s", why)
		return why
	}
	if to == nil {
		return ""
	}
	if t.Assurance != "" {
		to.add(0, "assurance", RulePass, "%s asks for %s at least, and the device's assurance is %s", product, t.Assurance, a)
	}
	if t.Wire != WireNone {
		to.add(0, "wire", RulePass, "%s asks for %s at least, and the device speaks %s", product, t.Wire, w)
	}
	if t.Confirm != "" {
		to.add(0, "trial", RulePass, "the device's bootloader goes back by itself")
	}
	return ""
}

// judgeRelease looks at a release by the terms of its product, and notes what passes
// for the rollout that it is of, 0 for none.
func (t Terms) judgeRelease(r *Release, rollout int64, to *Trace) (rule, why string) {
	rule, why = t.release(r)
	if rule == "" && to != nil {
		if len(t.Signers) > 0 {
			to.add(rollout, "signer", RulePass, "%s signed %s, and may", strings.Join(strings.Fields(r.Checked.Signers), ", "), r.Version)
		}
		if t.Confirm == ConfirmContact {
			to.add(rollout, "confirm", RulePass, "%s wants contact before it is confirmed", r.Version)
		}
	}
	return rule, CleanText(why, MaxText)
}

// VerdictTerms is of a device or a release that the terms of the product leave out. Frozen.
const VerdictTerms Verdict = "terms"

// Detail is what the log says of the change; t is what came of it.
func (c TermsChange) Detail(product string, t Terms) string {
	var parts []string
	say := func(said bool, what, value, none string) {
		if !said {
			return
		}
		if value == "" {
			value = none
		}
		parts = append(parts, what+" "+value)
	}
	say(c.Signers != nil, "signers", strings.Join(t.Signers, " "), "any")
	say(c.Assurance != nil, "least assurance", string(t.Assurance), "none")
	say(c.Wire != nil, "weakest wire", string(t.Wire), "any")
	say(c.Confirm != nil, "confirm", string(t.Confirm), "any")
	say(c.Chunks != nil, "chunk sizes", t.ChunksText(), "any")
	say(c.Hardware != nil, "hardware", strings.Join(t.Hardware, " "), "any")
	return CleanText(product+": "+strings.Join(parts, ", "), MaxText)
}
