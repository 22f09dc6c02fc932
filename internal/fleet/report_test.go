package fleet

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func ptr[T any](v T) *T { return &v }

// rel10 has 10 chunks, rel1043 those of the documented image.
var (
	rel10   = &Release{ID: 2, Product: "p", Version: "2.0", ChunkSize: 1024, Image: Image{Size: 10 * 1024}, State: ReleasePublished}
	rel1043 = &Release{ID: 3, Product: "p", Version: "3.0", ChunkSize: 1024, Image: Image{Size: 1068032}, State: ReleasePublished}
)

func chunks(n, total int) Report { return Report{ChunkReceived: &n, TotalChunks: &total} }

func names(events []Event) string {
	var s []string
	for _, e := range events {
		s = append(s, e.Name)
	}
	return strings.Join(s, " ")
}

func TestApplyReport(t *testing.T) {
	none := Deployment{Device: "d"}
	in := func(s DeploymentState, n int) Deployment {
		return Deployment{Device: "d", ReleaseID: 2, Version: "2.0", State: s, ChunksReceived: n, ChunksTotal: 10, Proven: true, StartedAt: at(1), UpdatedAt: at(2)}
	}
	verified := func(d Deployment) Deployment { d.Verified = true; return d }
	pending := func(d Deployment) Deployment { d.Verified = true; d.BootStatus = BootPendingReboot; return d }
	for _, c := range []struct {
		name   string
		dep    Deployment
		rep    Report
		state  DeploymentState
		chunks int
		reason string
		events string
	}{
		// Download.
		{"an empty report begins nothing", none, Report{}, "", 0, "", ""},
		{"the first chunk begins", none, chunks(1, 10), StateDownloading, 1, "", "chunk_received"},
		{"no chunk yet", none, chunks(0, 10), StateDownloading, 0, "", ""},
		{"a chunk more", in(StateDownloading, 4), chunks(5, 10), StateDownloading, 5, "", "chunk_received"},
		{"the same again", in(StateDownloading, 4), chunks(4, 10), StateDownloading, 4, "", ""},
		{"the last one", in(StateDownloading, 9), chunks(10, 10), StateVerifying, 10, "", "chunk_received"},
		{"started over", in(StateDownloading, 9), chunks(1, 10), StateDownloading, 1, "", "chunk_received"},
		{"started over after verifying", verified(in(StateVerifying, 10)), chunks(1, 10), StateDownloading, 1, "", "chunk_received"},
		{"more than there are", in(StateDownloading, 4), chunks(11, 10), StateDownloading, 4, "", ""},
		{"less than none", in(StateDownloading, 4), chunks(-1, 10), StateDownloading, 4, "", ""},
		{"another image's count (R2)", in(StateDownloading, 4), chunks(5, 11), StateDownloading, 4, "", "chunk_received"},
		{"no total said", in(StateDownloading, 4), Report{ChunkReceived: ptr(5)}, StateDownloading, 5, "", "chunk_received"},
		{"a percentage alone", in(StateDownloading, 4), Report{Progress: ptr(59.9)}, StateDownloading, 5, "", "chunk_received"},
		{"no number", in(StateDownloading, 4), Report{Progress: ptr(math.NaN())}, StateDownloading, 4, "", ""},
		{"false is no verdict in mid-download", in(StateDownloading, 4), Report{ChunkReceived: ptr(5), Verified: ptr(false)}, StateDownloading, 5, "", "chunk_received"},
		{"false is no verdict with the last chunk", in(StateDownloading, 9), Report{ChunkReceived: ptr(10), Verified: ptr(false)}, StateVerifying, 10, "", "chunk_received"},
		{"trouble with a chunk", in(StateDownloading, 4), Report{ChunkReceived: ptr(4), Error: ptr("HMAC mismatch")}, StateDownloading, 4, "HMAC mismatch", "device_error"},
		{"trouble is over", Deployment{Device: "d", ReleaseID: 2, State: StateDownloading, ChunksReceived: 4, Reason: "HMAC mismatch", Proven: true}, chunks(5, 10), StateDownloading, 5, "", "chunk_received"},
		// Verification.
		{"verified", in(StateVerifying, 10), Report{Verified: ptr(true)}, StateVerifying, 10, "", "firmware_verified"},
		{"verified twice", verified(in(StateVerifying, 10)), Report{Verified: ptr(true)}, StateVerifying, 10, "", ""},
		{"not verified", in(StateVerifying, 10), Report{Verified: ptr(false)}, StateFailed, 10, "verification failed", "verification_failed"},
		{"not verified, with a reason", in(StateVerifying, 10), Report{Verified: ptr(false), Error: ptr("SHA-256 differs"), NewVersion: ptr("2.0")}, StateFailed, 10, "SHA-256 differs", "verification_failed"},
		{"not verified, nothing begun, not named", none, Report{Verified: ptr(false)}, "", 0, "", ""},
		{"trouble at the beginning", none, Report{Verified: ptr(false), Progress: ptr(0.0), Error: ptr("no Wi-Fi, trying again")}, "", 0, "", "device_error"},
		{"not verified, nothing begun, with a reason", none, Report{Verified: ptr(false), Error: ptr("SHA-256 differs")}, StateFailed, 0, "SHA-256 differs", "verification_failed"},
		{"not verified, nothing begun, named", none, Report{Verified: ptr(false), NewVersion: ptr("2.0")}, StateFailed, 0, "verification failed", "verification_failed"},
		{"the last chunk and all that follows in one", in(StateDownloading, 9),
			Report{ChunkReceived: ptr(10), TotalChunks: ptr(10), Progress: ptr(100.0), Verified: ptr(true), BootStatus: ptr("pending_reboot"), NewVersion: ptr("2.0"), BootCount: ptr(3)},
			StateRebooting, 10, "", "chunk_received firmware_verified boot_status"},
		// Errors.
		{"gave up", in(StateDownloading, 4), Report{Error: ptr("flash could not be erased")}, StateFailed, 4, "flash could not be erased", "fota_failed"},
		{"refused at once", none, Report{Error: ptr("too large"), NewVersion: ptr("2.0")}, StateFailed, 0, "too large", "fota_failed"},
		{"an error about nothing", none, Report{Error: ptr("sensor lost")}, "", 0, "", "device_error"},
		{"an error after the end", in(StateConfirmed, 10), Report{Error: ptr("sensor lost")}, StateConfirmed, 10, "", "device_error"},
		{"failed, and goes on (R3)", in(StateFailed, 4), chunks(5, 10), StateDownloading, 5, "", "chunk_received"},
		{"failed, and starts over without an order (R3)", in(StateFailed, 4), chunks(1, 10), StateFailed, 4, "", ""},
		{"reverted, and starts over without an order (R3)", in(StateReverted, 4), chunks(5, 10), StateReverted, 4, "", ""},
		{"an error's text is cut and cleaned", in(StateDownloading, 4), Report{Error: ptr("a\x1b[2J\n" + strings.Repeat("x", 300))}, StateFailed, 4, "a [2J " + strings.Repeat("x", 250), "fota_failed"},
		// Boot.
		{"about to reboot", verified(in(StateVerifying, 10)), Report{BootStatus: ptr("pending_reboot")}, StateRebooting, 10, "", "boot_status"},
		{"about to reboot, again", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("pending_reboot")}, StateRebooting, 10, "", ""},
		{"it runs", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, StateConfirmed, 10, "", "boot_status fota_completed"},
		{"it runs, not named", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("success")}, StateConfirmed, 10, "", "boot_status fota_completed"},
		{"it runs, nothing known before", none, Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, StateConfirmed, 0, "", "boot_status fota_completed"},
		{"it runs after all (R3)", in(StateReverted, 10), Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, StateConfirmed, 10, "", "boot_status fota_completed"},
		{"it ran before", in(StateConfirmed, 10), Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, StateConfirmed, 10, "", "boot_status"},
		{"a boot in mid-download confirms nothing (R4)", in(StateDownloading, 4), Report{BootStatus: ptr("success")}, StateDownloading, 4, "", "boot_status"},
		{"a boot of nothing (R4)", none, Report{BootStatus: ptr("success")}, "", 0, "", "boot_status"},
		{"a boot after it went back (R4)", in(StateReverted, 10), Report{BootStatus: ptr("success")}, StateReverted, 10, "", "boot_status"},
		{"the old version runs (R2)", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("success"), NewVersion: ptr("1.0")}, StateRebooting, 10, "", "boot_status"},
		{"it did not boot", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("failed"), Error: ptr("panic")}, StateFailed, 10, "panic", "boot_failed"},
		{"it did not boot, no reason", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("failed"), BootCount: ptr(3)}, StateFailed, 10, "the image did not boot", "boot_failed"},
		{"a status that nobody knows", in(StateDownloading, 4), Report{BootStatus: ptr("warp\x00")}, StateDownloading, 4, "", "boot_status"},
		{"confirmed, with a remark", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("success"), Error: ptr("confirmed elsewhere"), Progress: ptr(100.0), Verified: ptr(true), NewVersion: ptr("2.0")}, StateConfirmed, 10, "confirmed elsewhere", "boot_status fota_completed"},
		// The way back.
		{"it went back", pending(in(StateRebooting, 10)), Report{BootStatus: ptr("failed"), Rollback: ptr(true), Error: ptr("crashed"), NewVersion: ptr("2.0")}, StateReverted, 10, "crashed", "boot_failed rollback_triggered"},
		{"it went back, said again", in(StateReverted, 10), Report{BootStatus: ptr("failed"), Rollback: ptr(true), Error: ptr("crashed")}, StateReverted, 10, "", ""},
		{"from what was confirmed", in(StateConfirmed, 10), Report{Rollback: ptr(true)}, StateReverted, 10, "the device went back", "rollback_triggered"},
		{"nothing known before", none, Report{Rollback: ptr(true), Error: ptr("three boots")}, StateReverted, 0, "three boots", "rollback_triggered"},
		{"not", in(StateDownloading, 4), Report{Rollback: ptr(false)}, StateDownloading, 4, "", ""},
	} {
		got, events := ApplyReport(&c.dep, rel10, c.rep, true, at(60))
		if got.State != c.state || got.ChunksReceived != c.chunks || got.Reason != c.reason || names(events) != c.events {
			t.Errorf("%s: %+v; events %q", c.name, got, names(events))
		}
		if got.State != "" && (!got.Proven || got.Device != "d" || got.ReleaseID != 2) {
			t.Errorf("%s: incomplete: %+v", c.name, got)
		}
		if c.dep.State.Ended() && got.State == c.dep.State && got != c.dep {
			t.Errorf("%s: what ended was touched: %+v", c.name, got)
		}
		for _, e := range events {
			if e.Device != "d" || !e.Time.Equal(at(60)) || !e.Proven || len(e.Detail) > MaxText || e.Version != "2.0" {
				t.Errorf("%s: event %+v", c.name, e)
			}
		}
	}
}

func TestApplyReportUnknownRelease(t *testing.T) {
	dep, events := ApplyReport(nil, nil, Report{BootStatus: ptr("success"), NewVersion: ptr("9.9")}, true, at(1))
	if dep.State != "" || names(events) != "boot_status" || events[0].Version != "9.9" {
		t.Errorf("%+v %+v", dep, events)
	}
}

// R1, in both directions.
func TestUnprovenReports(t *testing.T) {
	proven := Deployment{Device: "d", ReleaseID: 2, Version: "2.0", State: StateDownloading, ChunksReceived: 4, ChunksTotal: 10, Proven: true, StartedAt: at(1), UpdatedAt: at(2)}
	everything := Report{ChunkReceived: ptr(9), TotalChunks: ptr(10), Verified: ptr(true), BootStatus: ptr("failed"), NewVersion: ptr("2.0"), Rollback: ptr(true), Error: ptr("forged")}
	got, events := ApplyReport(&proven, rel10, everything, false, at(9))
	if got != proven {
		t.Errorf("a forged report changed %+v to %+v", proven, got)
	}
	if names(events) != "chunk_received firmware_verified boot_failed rollback_triggered" {
		t.Errorf("events %q", names(events))
	}
	for _, e := range events {
		if e.Proven || !strings.Contains(e.Detail, "not proven") {
			t.Errorf("event %+v", e)
		}
	}

	said, _ := ApplyReport(nil, rel10, everything, false, at(9))
	if said.State != StateReverted || said.Proven || OfferFor(Device{}, rel10, &said, at(10)).Release == nil {
		t.Errorf("a silent device's report is shown and decides nothing: %+v", said)
	}
	said.Device = "d"
	after, _ := ApplyReport(&said, rel10, chunks(1, 10), true, at(20))
	want := Deployment{Device: "d", ReleaseID: 2, Version: "2.0", State: StateDownloading, ChunksReceived: 1, ChunksTotal: 10, Proven: true, StartedAt: at(20), UpdatedAt: at(20)}
	if after != want {
		t.Errorf("the first proven report starts afresh: %+v", after)
	}
	// A report that begins nothing leaves what was said.
	if same, _ := ApplyReport(&said, rel10, Report{BootStatus: ptr("success")}, true, at(20)); same != said {
		t.Errorf("%+v", same)
	}
	// A silent device may begin again without an order.
	again, _ := ApplyReport(&said, rel10, chunks(1, 10), false, at(30))
	if again.State != StateDownloading || again.Proven || !again.StartedAt.Equal(at(30)) {
		t.Errorf("%+v", again)
	}
}

// R5: 1,043 reports make a dozen lines.
func TestChunkEventsAreThinned(t *testing.T) {
	dep := Deployment{Device: "d"}
	var details []string
	for n := 1; n <= 1043; n++ {
		var events []Event
		dep, events = ApplyReport(&dep, rel1043, chunks(n, 1043), true, at(float64(n)))
		for _, e := range events {
			details = append(details, strings.Fields(e.Detail)[0])
		}
	}
	if got := strings.Join(details, " "); got != "1 105 209 313 418 522 626 731 835 939 1043" {
		t.Error(got)
	}
}

func genReport(versions ...string) *rapid.Generator[Report] {
	return rapid.Custom(func(t *rapid.T) Report {
		opt := func(name string) bool { return rapid.Bool().Draw(t, name) }
		var r Report
		if opt("chunks?") {
			r.ChunkReceived = ptr(rapid.IntRange(-2, 12).Draw(t, "chunks"))
		}
		if opt("total?") {
			r.TotalChunks = ptr(rapid.SampledFrom([]int{10, 10, 10, 11, 0, -1, math.MaxInt}).Draw(t, "total"))
		}
		if opt("progress?") {
			r.Progress = ptr(rapid.Float64().Draw(t, "progress"))
		}
		if opt("verified?") {
			r.Verified = ptr(opt("verified"))
		}
		if opt("boot?") {
			r.BootStatus = ptr(rapid.SampledFrom([]string{BootPendingReboot, BootSuccess, BootFailed, "?", strings.Repeat("z", 99)}).Draw(t, "boot"))
		}
		if opt("version?") {
			r.NewVersion = ptr(rapid.SampledFrom(append([]string{"\x00", strings.Repeat("9", 99)}, versions...)).Draw(t, "version"))
		}
		if opt("rollback?") {
			r.Rollback = ptr(opt("rollback"))
		}
		if opt("count?") {
			r.BootCount = ptr(rapid.Int().Draw(t, "count"))
		}
		if opt("error?") {
			r.Error = ptr(rapid.String().Draw(t, "error") + strings.Repeat("é", rapid.IntRange(0, 400).Draw(t, "long")))
		}
		return r
	})
}

// Whatever a device says, in any order: what is stored stays in its bounds, a
// report without proof never touches what has one, and what ended stays so.
func TestApplyReportProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dep := Deployment{Device: "d"}
		for i, n := 0, rapid.IntRange(1, 12).Draw(t, "reports"); i < n; i++ {
			rep := genReport("2.0", "1.0").Draw(t, fmt.Sprint("report ", i))
			proven := rapid.Bool().Draw(t, "proven")
			now := at(float64(i + 1))
			next, events := ApplyReport(&dep, rel10, rep, proven, now)
			if dep.Proven && !proven && next != dep {
				t.Fatalf("forged: %+v became %+v", dep, next)
			}
			if next.State != "" && next != dep && next.Proven != proven {
				t.Fatalf("proven %v, but %+v", proven, next)
			}
			if next.ChunksReceived < 0 || next.ChunksReceived > 10 || len(next.Reason) > MaxText || CleanText(next.Reason, MaxText) != next.Reason {
				t.Fatalf("out of bounds: %+v", next)
			}
			if dep.Proven && dep.State.Ended() && next.State != dep.State {
				// By a count, or by a percentage where the count can't be one.
				counted := rep.ChunkReceived != nil || rep.Progress != nil
				resumed := dep.State == StateFailed && counted && next.ChunksReceived > dep.ChunksReceived
				runs := next.State == StateConfirmed && rep.NewVersion != nil && *rep.NewVersion == "2.0"
				back := next.State == StateReverted && rep.Rollback != nil && *rep.Rollback
				fell := dep.State == StateConfirmed && next.State == StateFailed && rep.BootStatus != nil && *rep.BootStatus == BootFailed
				if !resumed && !runs && !back && !fell {
					t.Fatalf("%+v rose to %+v by %+v", dep, next, rep)
				}
			}
			if len(events) > 5 {
				t.Fatalf("%d events by one report", len(events))
			}
			for _, e := range events {
				if len(e.Detail) > MaxText || CleanText(e.Detail, MaxText) != e.Detail || e.Proven != proven || len(e.Version) > MaxVersion {
					t.Fatalf("event %+v", e)
				}
			}
			if next.State != "" {
				dep = next
			}
		}
	})
}
