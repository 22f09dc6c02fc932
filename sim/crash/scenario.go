package crash

import (
	"slices"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/sim/board"
)

// Scenario is what happens to a board: what is on offer when, how the new images
// behave, and which image runs in the end. A is flashed in the factory; the others
// are releases, newer in the order of their names.
type Scenario struct {
	Name string
	Says string // in a sentence
	Wire board.Kind
	// Before happens without power cuts, Turns with them.
	Before, Turns []Turn

	behave     map[string]board.Behaviour
	same       map[string]string // a release of another one's bytes
	rotate     int               // generations of roots that come between B and the others
	noRollback bool              // the bootloader has none
	fallsBack  bool              // the bootloader refuses an image that the updater takes
	// because has the reasons of which the server must have heard one, where the
	// release in the last turn comes to nothing.
	because []device.Reason
	derived *derivedStory // the last release comes by a derived stream too
}

// Turn is what the operator does, and what comes of it.
type Turn struct {
	Offer   string // a release; "": what was on offer stays
	Nothing bool   // the offer is taken back
	Revert  bool
	Lists   int   // so many newer key lists are published
	Until   Until // the turn is over
	Of      string
	Runs    string // the image that runs then
}

// Until is when a turn is over, by what the server has seen.
type Until uint8

const (
	Confirmed Until = iota + 1 // the device said that it confirmed it
	Half                       // it fetched half of it
	Ended                      // it said that it came to nothing
	Obeyed                     // it said what became of the order to go back
	Polled                     // it polled three times
)

// stories are Scenarios for both wires.
func stories() []Scenario {
	confirm := func(r string) Turn { return Turn{Offer: r, Until: Confirmed, Of: r, Runs: r} }
	refuse := func(r string) Turn { return Turn{Offer: r, Until: Ended, Of: r, Runs: "A"} }
	half := Turn{Offer: "B", Until: Half, Of: "B", Runs: "A"}
	behaves := func(b board.Behaviour) map[string]board.Behaviour { return map[string]board.Behaviour{"B": b} }
	return []Scenario{
		{Name: "update", Says: "The first update of a board as it left the factory.",
			Turns: []Turn{confirm("B")}},
		{Name: "over-older", Says: "An update over the image before the last.",
			Before: []Turn{confirm("B")}, Turns: []Turn{confirm("C")}},
		{Name: "newer-midway", Says: "A newer release comes when half of the first is fetched.",
			Turns: []Turn{half, confirm("C")}},
		{Name: "taken-back", Says: "The release is taken back when half of it is fetched; another one comes later.",
			Turns: []Turn{half, {Nothing: true, Until: Polled, Of: "B", Runs: "A"}, confirm("C")}},
		{Name: "no-boot", Says: "The bootloader refuses a release that the updater took.",
			Turns: []Turn{refuse("B")}, behave: behaves(board.BehaveNoBoot), fallsBack: true,
			because: []device.Reason{device.ReasonNotVerified, device.ReasonGaveUp}},
		{Name: "crash", Says: "A release that crashes before its updater starts.",
			Turns: []Turn{refuse("B")}, behave: behaves(board.BehavePanic),
			because: []device.Reason{device.ReasonCrashed, device.ReasonGaveUp}},
		{Name: "hang", Says: "A release that hangs until a watchdog ends it.",
			Turns: []Turn{refuse("B")}, behave: behaves(board.BehaveHang),
			because: []device.Reason{device.ReasonCrashed, device.ReasonGaveUp}},
		{Name: "self-test", Says: "A release that fails its own test.",
			Turns: []Turn{refuse("B")}, behave: behaves(board.BehaveSelfTest),
			because: []device.Reason{device.ReasonSelfTest, device.ReasonGaveUp}},
		{Name: "mute", Says: "A release that reaches no server goes back, and is tried four times.",
			Turns: []Turn{refuse("B")}, behave: behaves(board.BehaveMute),
			because: []device.Reason{device.ReasonGaveUp}},
		{Name: "revert", Says: "An operator orders the way back to the other slot.",
			Before: []Turn{confirm("B"), confirm("C")},
			Turns:  []Turn{{Revert: true, Until: Obeyed, Of: "C", Runs: "B"}}},
		{Name: "reissue", Says: "The image before the last is issued again under a newer number.",
			Before: []Turn{confirm("B"), confirm("C")}, Turns: []Turn{{Offer: "D", Until: Confirmed, Of: "D", Runs: "B"}},
			same: map[string]string{"D": "B"}},
		{Name: "no-rollback", Says: "An update under a bootloader without rollback.",
			Turns: []Turn{confirm("B")}, noRollback: true},
		{Name: "no-rollback-self-test", Says: "The same, and the release fails its own test.",
			Turns: []Turn{refuse("B")}, noRollback: true, behave: behaves(board.BehaveSelfTest),
			because: []device.Reason{device.ReasonSelfTest, device.ReasonBootsSpent, device.ReasonGaveUp}},
		{Name: "early-confirm", Says: "A release that confirms before its first line, as the Arduino core does.",
			Turns: []Turn{confirm("B")}, behave: behaves(board.BehaveEarly)},
	}
}

// Scenarios are all there are, in a fixed order.
func Scenarios() []*Scenario {
	var all []*Scenario
	for _, wire := range []board.Kind{board.NativeWire, board.V1} {
		for _, s := range stories() {
			s.Wire = wire
			s.Name = wireName(wire) + "-" + s.Name
			all = append(all, &s)
		}
	}
	all = append(all, derivedScenarios()...)
	return append(all, &Scenario{Name: "native-key-rotation", Wire: board.NativeWire,
		Says:   "Two generations of root keys and a new release key, all at once, and a release that only they stand for.",
		Before: []Turn{{Offer: "B", Until: Confirmed, Of: "B", Runs: "B"}}, rotate: 2,
		Turns: []Turn{{Offer: "C", Lists: 2, Until: Confirmed, Of: "C", Runs: "C"}}})
}

func wireName(k board.Kind) string {
	if k == board.V1 {
		return "v1"
	}
	return "native"
}

// FindScenario returns the one of a name, or nil.
func FindScenario(name string) *Scenario {
	for _, s := range Scenarios() {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// native: the scenario is on the native wire.
func (s *Scenario) native() bool { return s.Wire == board.NativeWire }

// releases are the names of all releases, in order.
func (s *Scenario) releases() (names []string) {
	for _, t := range slices.Concat(s.Before, s.Turns) {
		if t.Offer != "" && !slices.Contains(names, t.Offer) {
			names = append(names, t.Offer)
		}
	}
	slices.Sort(names)
	return names
}

// may is which images may run while a turn of Turns lasts: what ran before it, what is
// on offer, and what is to run.
func (s *Scenario) may(turn int) []string {
	turn = min(turn, len(s.Turns)-1)
	t := s.Turns[turn]
	names := []string{s.before(turn), t.Runs}
	if t.Offer != "" {
		names = append(names, s.image(t.Offer))
	}
	if t.Of != "" {
		names = append(names, s.image(t.Of))
	}
	// What was on offer a turn ago may be on trial still.
	if turn > 0 && s.Turns[turn-1].Offer != "" {
		names = append(names, s.image(s.Turns[turn-1].Offer))
	}
	return names
}

// before is the image that runs when a turn begins.
func (s *Scenario) before(turn int) string {
	if turn > 0 {
		return s.image(s.Turns[turn-1].Runs)
	}
	if n := len(s.Before); n > 0 {
		return s.image(s.Before[n-1].Runs)
	}
	return "A"
}

// image is the name of the image that a release has the bytes of.
func (s *Scenario) image(release string) string {
	if o, ok := s.same[release]; ok {
		return o
	}
	return release
}
