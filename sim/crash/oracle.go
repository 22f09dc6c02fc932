package crash

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Kind of a failure.
type Kind uint8

const (
	Bricked    Kind = iota + 1 // nothing starts
	WrongImage                 // flash holds what it must not, or was touched where it must not
	Stuck                      // the update does not get on, or costs more than is promised
)

func (k Kind) String() string {
	return [...]string{"", "bricked", "wrong image", "stuck"}[k]
}

// Failure is what a run broke.
type Failure struct {
	ID   string
	Kind Kind
	Text string
}

func (f *Failure) Error() string { return fmt.Sprintf("%s: %s: %s", f.ID, f.Kind, f.Text) }

// fail keeps the first failure.
func (w *world) fail(k Kind, format string, args ...any) {
	if w.failure != nil {
		return
	}
	id := ID{w.set.Scenario.Name, w.set.Geometry.Name, w.set.Seed, w.cuts, w.lie != nil}
	text := fmt.Sprintf(format, args...)
	if last := w.last(); last != "" {
		text += "; last events" + last
	}
	if w.cancel != nil {
		w.cancel() // also where no updater looks
	}
	w.failure = &Failure{ID: id.String(), Kind: k, Text: text}
	if w.trace != nil {
		w.trace("FAILED %s: %s", k, text)
	}
}

// seen is what only ever rises, as far as it was seen in flash.
type seen struct {
	floors state.Floors
	nonce  uint64
	list   uint32
	bad    []state.BadImage

	recorded bool   // a boot record of ours was in force
	record   uint32 // its sequence
}

// look holds an operation that is about to happen against what may be touched now.
func (w *world) look(op nor.Op) {
	r, ok := w.set.regionOf(op.Off, op.Len)
	switch {
	case !ok:
		w.fail(WrongImage, "%s is in no partition that an update may change", op)
	case r.name == scratchName && w.starting:
		w.fail(WrongImage, "the bootloader writes into %s: %s", r.name, op)
	case r.slot == noSlot:
	case w.starting:
		w.fail(WrongImage, "the bootloader writes into %s: %s", r.name, op)
	case r.slot == int(w.running):
		w.fail(WrongImage, "the running slot is touched: %s", op)
	case w.onTrial():
		w.fail(WrongImage, "the only way back is touched during a trial: %s", op)
	}
}

// onTrial reads from flash whether the running image has still to prove itself.
func (w *world) onTrial() bool {
	if w.running == boot.Factory {
		return false
	}
	if w.set.Geometry.own {
		r, ok := w.record()
		return ok && r.States[w.running] == boot.RecordPending
	}
	records, _ := w.records()
	for i := range records {
		e := &records[i]
		if e.CRCOK() && e.State() == esp32.StatePending && esp32.SlotOf(e.Seq(), uint32(len(w.set.slots))) == uint32(w.running) {
			return true
		}
	}
	if !w.b.NoRollback {
		return false
	}
	r, ok, err := w.b.LoadState(&w.set.kit.table)
	return err == nil && ok && r.Trial.Open && r.Trial.Slot == w.running
}

// records are both boot records as they stand in flash. What a cut left of an erase
// reads differently from time to time: then the reading that comes twice running
// counts, and stable is false.
func (w *world) records() (e [2]esp32.Entry, stable bool) {
	const reads = 12 // a marginal sector reads right three times in four
	stable = true
	for i := range e {
		agreed := false
		for n := range reads {
			var r esp32.Entry
			if w.b.Chip.ReadAt(r[:], otadataAt+uint32(i)*w.set.Geometry.sector()) != nil {
				return e, false
			}
			if n == 0 {
				e[i] = r
				continue
			}
			same := r == e[i]
			stable = stable && same
			if !agreed {
				e[i], agreed = r, same
			}
		}
	}
	return e, stable
}

// steady: many more reads of the records agree. A marginal sector reads right three
// times in four, so that a dozen may agree by chance.
func (w *world) steady() bool {
	for range 20 {
		if _, stable := w.records(); !stable {
			return false
		}
	}
	return true
}

// holds says which known image stands whole at a place; "": none.
func (w *world) holds(off, size uint32) string {
	buf := make([]byte, w.set.Geometry.Image)
	if int(size) < len(buf) || w.b.Chip.ReadAt(buf, off) != nil {
		return ""
	}
	for _, name := range w.set.kit.names {
		if bytes.Equal(buf, w.set.kit.images[name]) {
			return name
		}
	}
	return ""
}

// image is what a slot holds.
func (w *world) image(s boot.Slot) string {
	if s == boot.Factory {
		p := w.set.kit.table.Find(esp32.TypeApp, esp32.SubtypeFactory)
		if p == nil {
			return ""
		}
		return w.holds(p.Offset, p.Size)
	}
	a := &w.set.slots[s]
	return w.holds(a.Base(), a.Size())
}

// inspect is the oracle at each start: everything that flash holds, when the
// bootloader has decided and before the updater does anything.
func (w *world) inspect() {
	s := w.set.Scenario
	runs := w.image(w.running)
	turn := min(w.turn, len(w.turns)-1)
	if w.set.root != nil && !slices.Contains(s.may(turn), runs) {
		w.fail(WrongImage, "slot %d starts with %q in it; only %q may", w.running, runs, s.may(turn))
		return
	}
	if runs == "" {
		w.fail(WrongImage, "slot %d starts with no known image in it", w.running)
		return
	}
	w.inspectRecords(runs)
	w.inspectState()
	if n := w.b.Chip.Misuses(); n > 0 {
		w.fail(WrongImage, "%d flash operations were refused: a unit was programmed twice", n)
	}
}

// inspectRecords holds the boot records against the model: what they say starts, a slot that
// they name is whole, and a trial has a way back.
func (w *world) inspectRecords(runs string) {
	if w.set.Geometry.own {
		w.inspectOwn()
	} else {
		w.inspectOTAData()
	}
	if !w.onTrial() || w.set.root == nil {
		return
	}
	back := w.set.Scenario.before(min(w.turn, len(w.turns)-1))
	for i := range w.set.slots {
		if boot.Slot(i) != w.running && w.image(boot.Slot(i)) == back {
			return
		}
	}
	if w.set.Geometry.factory && w.image(boot.Factory) == back {
		return
	}
	if runs != back {
		w.fail(WrongImage, "%q is on trial and no slot holds %q any more", runs, back)
	}
}

func (w *world) inspectOTAData() {
	e, stable := w.records()
	s := esp32.Select(e[0], e[1], uint32(len(w.set.slots)), w.set.Geometry.factory, false)
	says := boot.Slot(uint8(s.BootIndex)) // the factory's index is -1, its slot 255
	if says != w.running && stable && w.steady() && !w.set.Scenario.fallsBack {
		w.fail(WrongImage, "otadata says slot %d, and slot %d starts: a record named a slot that is not whole", says, w.running)
	}
}

// inspectState: what was written before is in force, and nothing that may only rise
// has gone back.
func (w *world) inspectState() {
	if w.set.Geometry.noState {
		return
	}
	r, _, err := w.b.LoadState(&w.set.kit.table)
	if err != nil {
		w.fail(Stuck, "the state can't be read: %v", err)
		return
	}
	s, f := &w.seen, &r.Floors
	switch {
	case f.Epoch < s.floors.Epoch, f.Epoch == s.floors.Epoch && f.Stamp < s.floors.Stamp, f.Security < s.floors.Security:
		w.fail(WrongImage, "floors went from %+v back to %+v", s.floors, *f)
	case r.NonceLimit < s.nonce:
		w.fail(Stuck, "reserved nonces went from %d back to %d", s.nonce, r.NonceLimit)
	}
	for _, b := range s.bad {
		if !slices.ContainsFunc(r.Bad[:], func(n state.BadImage) bool { return n.DigestHead == b.DigestHead && n.Stamp >= b.Stamp }) {
			w.fail(WrongImage, "a bad image was forgotten")
		}
	}
	s.floors, s.nonce, s.bad = *f, r.NonceLimit, nil
	for _, b := range r.Bad {
		if b != (state.BadImage{}) {
			s.bad = append(s.bad, b)
		}
	}
	if !w.set.Scenario.native() {
		return
	}
	list := w.held()
	if list < s.list {
		w.fail(WrongImage, "the key list went from version %d back to %d", s.list, list)
	}
	s.list = list
}

// held is the version of the key list that flash holds.
func (w *world) held() uint32 {
	p := w.set.kit.table.Find(esp32.TypeRunnel, esp32.SubtypeState)
	area, err := flash.NewArea(w.b.Chip, p.Offset, p.Size)
	if err != nil {
		return 0
	}
	store, err := state.NewSectors(area)
	if err != nil {
		return 0
	}
	var r state.Record
	var t manifest.Trust
	if store.Load(&r, make([]byte, state.BufferSize)) != nil || store.TrustLen() == 0 ||
		t.Load(&store, make([]byte, manifest.TrustHeaderSize)) != 0 {
		return 0
	}
	return t.Version
}

// settled: an image runs, and its boot record is VALID.
func (w *world) settled(image string) bool {
	if w.set.Geometry.own {
		r, ok := w.record()
		return ok && r.Active == w.running && r.States[w.running] == boot.RecordValid && w.image(w.running) == image
	}
	e, _ := w.records()
	at := esp32.Active(&e[0], &e[1])
	return at >= 0 && e[at].State() == esp32.StateValid && w.image(w.running) == image
}

// expect holds the board against what a turn was to come to.
func (w *world) expect(t *Turn) {
	if runs := w.image(w.running); runs != t.Runs {
		w.fail(WrongImage, "the server was told that %q runs, and %q does", t.Runs, runs)
	}
}

// finish is the oracle behind the last turn.
func (w *world) finish() {
	s := w.set.Scenario
	last := &w.turns[len(w.turns)-1]
	if w.set.root != nil && w.gaveUp(last) {
		old := Turn{Until: Ended, Of: last.Of, Runs: w.set.Scenario.before(len(w.turns) - 1)}
		w.inspectAtEnd(&old)
		w.inspectCost()
		return
	}
	if w.lie != nil {
		return // lieAt has its own end: a board that could not write a record may stay where it is
	}
	w.inspectAtEnd(last)
	if w.set.root == nil || w.failure != nil {
		return
	}
	if last.Until == Ended {
		h := &w.srv.Heard[w.set.kit.index[last.Of]]
		if !slices.ContainsFunc(s.because, h.Said) {
			w.fail(Stuck, "the server heard %q as the reason", h.Last)
		}
	}
	w.inspectDerived()
	if !w.dry {
		w.inspectCost()
	}
}

func (w *world) inspectAtEnd(last *Turn) {
	w.expect(last)
	if n := w.b.Chip.Misuses(); n > 0 {
		w.fail(WrongImage, "%d flash operations were refused: a unit was programmed twice", n)
	}
	switch {
	case w.running == boot.Factory || w.set.Scenario.fallsBack:
	case w.set.Geometry.own:
		w.ownAtEnd(last.Until == Confirmed)
	default:
		e, _ := w.records()
		at := esp32.Active(&e[0], &e[1])
		if at < 0 || esp32.SlotOf(e[at].Seq(), uint32(len(w.set.slots))) != uint32(w.running) {
			w.fail(WrongImage, "in the end otadata does not name slot %d", w.running)
		} else if st := e[at].State(); last.Until == Confirmed && st != esp32.StateValid {
			w.fail(WrongImage, "in the end the record of slot %d has state %d", w.running, st)
		}
	}
	if w.set.Geometry.noState {
		return
	}
	w.inspectState()
	r, _, err := w.b.LoadState(&w.set.kit.table)
	if err != nil || r.Trial.Open {
		w.fail(Stuck, "in the end a trial is open still, %v", err)
	}
	if last.Until != Confirmed {
		return
	}
	rel := w.release(last.Of)
	if r.Confirmed.Digest != rel.Digest || r.Confirmed.Stamp != rel.Sequence {
		w.fail(WrongImage, "in the end another image than %q is noted as confirmed", last.Of)
	}
	if w.set.Scenario.native() && (r.Floors.Stamp != rel.Sequence || r.Floors.Security != rel.Security) {
		w.fail(WrongImage, "in the end floors are %+v", r.Floors)
	}
}

// Wears are the kinds of regions whose wear is bounded.
var Wears = [...]string{"slots", "rnl_journal", "otadata", "rnl_state", scratchName}

// wearBound is how often, beside what the update itself takes, a sector may be erased
// for each cut: what was torn is erased again, an image whose trial was cut is staged
// again, each start reserves nonces, and a snapshot that was cut is made again, perhaps in
// the other half.
var wearBound = [...]int64{2, 3, 6, 6, 2}

// inspectCost: what the cuts cost is what is promised.
func (w *world) inspectCost() {
	n := int64(len(w.cuts))
	if extra, most := w.extra(), n*w.set.promised(); extra > most {
		w.fail(Stuck, "%d bytes were fetched again, at most %d are promised", extra, most)
	}
	for kind, more := range w.wear() {
		if bound := n * wearBound[kind]; more > bound {
			w.fail(Stuck, "a sector of %s was erased %d times more than without a cut, at most %d are promised", Wears[kind], more, bound)
		}
	}
}

// wear is how many erases more than without a cut the most worn sector of each kind
// of region had.
func (w *world) wear() (most [len(Wears)]int64) {
	wear, start := w.set.wear(w.b.Chip), w.set.wear(w.set.root.b.Chip)
	for i := range wear {
		r, ok := w.set.regionOf(uint32(i)*w.set.Geometry.sector(), w.set.Geometry.sector())
		if !ok {
			continue
		}
		kind := wearOf(&r)
		most[kind] = max(most[kind], int64(wear[i]-start[i])-int64(w.set.Dry.wear[i]))
	}
	return most
}

// extra is how many bytes were fetched again.
func (w *world) extra() int64 { return max(0, w.srv.Total()-w.base-w.set.Dry.Fetched) }

// erases of slots in this run, in sectors.
func (w *world) erases() uint64 {
	wear, start := w.set.wear(w.b.Chip), w.set.wear(w.set.root.b.Chip)
	for i := range wear {
		wear[i] -= start[i]
	}
	return w.set.slotErases(wear)
}
