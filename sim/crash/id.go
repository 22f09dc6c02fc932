package crash

import (
	"fmt"
	"strconv"
	"strings"
)

// Cut is one power failure of a run: at operation Op since the power came on, in the
// way of the number Tear among those that the operation has (tears).
type Cut struct{ Op, Tear int }

// ID names a run: its text is what a failure prints and what replays it.
type ID struct {
	Scenario, Geometry string
	Seed               uint64
	Cuts               []Cut
	// Lie: the one in Cuts is no cut but a Fault.
	Lie bool
}

// String is such as native-update/small/1:k37t2,k5t0; a fault's is such as :k37f1.
func (id ID) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s/%d", id.Scenario, id.Geometry, id.Seed)
	way := 't'
	if id.Lie {
		way = 'f'
	}
	for i, c := range id.Cuts {
		fmt.Fprintf(&b, "%ck%d%c%d", ":,"[min(i, 1)], c.Op, way, c.Tear)
	}
	return b.String()
}

// maxCuts of an id.
const maxCuts = 1000

// ParseID reads what String wrote.
func ParseID(text string) (ID, error) {
	var id ID
	bad := func(what string) (ID, error) {
		return ID{}, fmt.Errorf("id %q: %s; one is like native-update/small/1:k37t2,k5t0", text, what)
	}
	name, cuts, hasCuts := strings.Cut(text, ":")
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return bad("no scenario, geometry and seed")
	}
	id.Scenario, id.Geometry = parts[0], parts[1]
	var err error
	if id.Seed, err = strconv.ParseUint(parts[2], 10, 64); err != nil {
		return bad("the seed is no number")
	}
	if !hasCuts {
		return id, nil
	}
	list := strings.Split(cuts, ",")
	if len(list) > maxCuts {
		return bad("too many cuts")
	}
	way := "t"
	if len(list) == 1 && strings.Contains(list[0], "f") {
		id.Lie, way = true, "f"
	}
	for _, c := range list {
		k, t, ok := strings.Cut(strings.TrimPrefix(c, "k"), way)
		op, err1 := strconv.ParseUint(k, 10, 31)
		tear, err2 := strconv.ParseUint(t, 10, 31)
		if !ok || !strings.HasPrefix(c, "k") || err1 != nil || err2 != nil {
			return bad(fmt.Sprintf("%q is no cut", c))
		}
		id.Cuts = append(id.Cuts, Cut{int(op), int(tear)})
	}
	return id, nil
}
