package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestParsePhases(t *testing.T) {
	like := Phase{Success: 0.8, Fail: 0.2}
	list, err := ParsePhases("1, 25,group:beta,10%,99.5%,100%", like)
	if err != nil || fmt.Sprint(list) != "[1 25 group:beta 10% 99.5% 100%]" || list[3].Success != 0.8 || list[3].Fail != 0.2 {
		t.Errorf("%v %v", list, err)
	}
	for _, text := range []string{"", "x", "1,,2", "%", "10 percent", "1.5"} {
		if _, err := ParsePhases(text, like); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
	for text, want := range map[string]float64{"20%": 0.2, "0.25": 0.25, "0": 0, "100%": 1} {
		if got, err := ParseShare(text); err != nil || got != want {
			t.Errorf("%q: %g %v", text, got, err)
		}
	}
	for _, text := range []string{"", "%", "-1%", "101%", "NaN", "2", "x%"} {
		if _, err := ParseShare(text); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestCourseValidate(t *testing.T) {
	groups := func(name string) bool { return name == "beta" }
	course := func(phases string, change func(*Course)) Course {
		list, err := ParsePhases(phases, Phase{Success: DefaultSuccess, Fail: DefaultFail})
		if err != nil {
			t.Fatal(err)
		}
		c := Course{Phases: list}
		c.Fill()
		if change != nil {
			change(&c)
		}
		return c
	}
	for _, c := range []Course{course("1,10%,100%", nil), course("group:beta,5,50%,group:beta", nil), course("1", func(c *Course) {
		c.OnFailure, c.Window, c.Concurrency, c.BytesPerSec, c.Quarantine = OnFailureRevert, "22:00-04:30", 5, 1<<20, 3
	})} {
		if err := c.Validate(groups); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	for part, c := range map[string]Course{
		"filter: column 1":        course("1", func(c *Course) { c.To = "nope" }),
		"1 to 16 phases":          course("1", func(c *Course) { c.Phases = nil }),
		"allowed are 1 to":        course("0", nil),
		"larger than the one":     course("5,5", nil),
		"numbers come before":     course("10%,5", nil),
		"at most 100%":            course("101%", nil),
		"not above 20%":           course("20%,10%", nil),
		"no group \"gamma\"":      course("group:gamma", nil),
		"of kind \"\"":            course("1", func(c *Course) { c.Phases[0].Kind = "" }),
		"success threshold":       course("1", func(c *Course) { c.Phases[0].Success = 0 }),
		"failure threshold":       course("1", func(c *Course) { c.Phases[0].Fail = 1 }),
		"a soak of":               course("1", func(c *Course) { c.Phases[0].Soak, c.Phases[0].Most = time.Hour, time.Minute }),
		"not pause or revert":     course("1", func(c *Course) { c.OnFailure = "stop" }),
		"silence of":              course("1", func(c *Course) { c.Silence = time.Second }),
		"can't decide":            course("1", func(c *Course) { c.MinRevert = 1 }),
		"not own or shared":       course("1", func(c *Course) { c.Assurance = AssuranceNone }),
		"assurance has to be own": course("1", func(c *Course) { c.OnFailure, c.Assurance = OnFailureRevert, AssuranceShared }),
		"concurrency":             course("1", func(c *Course) { c.Concurrency = -1 }),
		"no maintenance window":   course("1", func(c *Course) { c.Window = "late" }),
		"begins when it ends":     course("1", func(c *Course) { c.Window = "02:00-02:00" }),
	} {
		if err := c.Validate(groups); CodeOf(err) != CodeInvalid || !strings.Contains(fmt.Sprint(err, err.(*Error).Hint), part) {
			t.Errorf("%s: %v", part, err)
		}
	}
}

// Places are spread, the same each time, and another's in another rollout.
func TestPlace(t *testing.T) {
	const n = 20_000
	var tenths [10]int
	both := 0
	for i := range n {
		id := fmt.Sprint("device-", i)
		p := Place(1, id)
		if p < 0 || p >= 1 || p != Place(1, id) {
			t.Fatal(p)
		}
		tenths[int(p*10)]++
		if p < 0.1 && Place(2, id) < 0.1 {
			both++
		}
	}
	for i, got := range tenths { // 6 standard deviations of a binomial
		if got < n/10-255 || got > n/10+255 {
			t.Errorf("tenth %d has %d", i, got)
		}
	}
	if both < 130 || both > 280 {
		t.Errorf("%d are in the first tenth of both", both)
	}
	if got := fmt.Sprintf("%.6f", Place(7, "pump-7")); got != "0.608003" {
		t.Errorf("the golden place is %s", got)
	}
}

func TestWindow(t *testing.T) {
	night, err := ParseWindow("22:00-04:30")
	if err != nil {
		t.Fatal(err)
	}
	day, _ := ParseWindow("09:00-17:00")
	for _, c := range []struct {
		clock      string
		night, day bool
	}{{"21:59", false, false}, {"22:00", true, false}, {"00:00", true, false}, {"04:29", true, false}, {"04:30", false, false}, {"09:00", false, true}, {"16:59", false, true}, {"17:00", false, false}} {
		at, err := time.Parse("15:04", c.clock)
		if err != nil {
			t.Fatal(err)
		}
		if night.Open(at) != c.night || day.Open(at) != c.day || !(Window{}).Open(at) {
			t.Errorf("%s: %v %v", c.clock, night.Open(at), day.Open(at))
		}
	}
	for _, bad := range []string{"22", "22:00", "22:00-24:30", "25:00-01:00", "a-b", "22:00-04:30-05:00"} {
		if _, err := ParseWindow(bad); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCount(t *testing.T) {
	var c Counts
	for _, x := range []Tally{
		{N: 1, State: StateOffered}, {N: 1, State: StateOffered, Quiet: true},
		{N: 2, State: StateDownloading}, {N: 2, State: StateDownloading, Quiet: true}, // only off: nothing of the image runs
		{N: 3, State: StateTrial}, {N: 4, State: StateTrial, Quiet: true}, {N: 5, State: StateRebooting, Quiet: true},
		{N: 10, State: StateConfirmed, Runs: true}, {N: 1, State: StateConfirmed, Runs: true, Ordered: true}, {N: 1, State: StateConfirmed},
		{N: 20, State: StateFailed, Class: ClassImage}, {N: 1, State: StateFailed, Class: ClassFlash, Tries: 1}, {N: 1, State: StateFailed, Class: ClassFlash, Tries: 3},
		{N: 6, State: StateReverted, Class: ClassOrdered}, {N: 7, State: StateUnproven}, {N: 8, State: StateSkipped}, {N: 1, State: StateCancelled},
	} {
		x.Assurance = AssuranceOwn
		c.Count(x, AssuranceOwn)
	}
	want := Counts{Offered: 74, Progress: 12, Confirmed: 12, Failed: 22, Silent: 9, Unproven: 7, Aside: 15, Retrying: 1, OwnBad: 31, ToRevert: 10, Reverting: 1}
	if c != want {
		t.Errorf("%+v, not\n%+v", c, want)
	}
	c = Counts{}
	for _, a := range []Assurance{"", AssuranceNone, AssuranceShared} {
		c.Count(Tally{N: 1, State: StateFailed, Assurance: a}, AssuranceOwn)
	}
	c.Count(Tally{N: 5, State: StateFailed, Assurance: AssuranceShared}, AssuranceShared)
	c.Count(Tally{N: 1, State: StateConfirmed, Runs: true, Assurance: AssuranceNone}, AssuranceShared)
	if want := (Counts{Offered: 5, Failed: 5, Uncounted: 4, ToRevert: 1}); c != want {
		t.Errorf("%+v, not\n%+v", c, want)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, c := range []struct {
		class Class
		tries int
		scale float64
		want  time.Duration
		ok    bool
	}{
		{ClassImage, 1, 0, 0, false}, {ClassNone, 1, 0, 0, false}, {ClassOrdered, 1, 0, 0, false},
		{ClassFlash, 1, 0, time.Hour, true}, {ClassFlash, 2, 0, 4 * time.Hour, true}, {ClassFlash, 3, 0, 0, false}, {ClassFlash, 1, 0.5, 30 * time.Minute, true},
		{ClassRefused, 2, 0, 24 * time.Hour, true}, {ClassRefused, 3, 0, 0, false},
	} {
		if got, ok := RetryAfter(c.class, c.tries, c.scale); got != c.want || ok != c.ok {
			t.Errorf("%+v: %s %v", c, got, ok)
		}
	}
}

func TestTags(t *testing.T) {
	if err := ValidateTags([]string{"beta", "line-3"}, map[string]string{"site": "Halle 4, Tor 2", ZoneAttribute: "Europe/Berlin"}); err != nil {
		t.Error(err)
	}
	for _, tags := range [][]string{{""}, {"a b"}, {strings.Repeat("x", maxTag+1)}, make([]string, MaxTags+1)} {
		if err := ValidateTags(tags, nil); CodeOf(err) != CodeInvalid {
			t.Errorf("%q: %v", tags, err)
		}
	}
	for k, v := range map[string]string{"a b": "x", "a": "x\ny", "b": strings.Repeat("x", maxTag+1), ZoneAttribute: "Moon/Crater"} {
		if err := ValidateTags(nil, map[string]string{k: v}); CodeOf(err) != CodeInvalid {
			t.Errorf("%q %q: %v", k, v, err)
		}
	}
}
