package fleet

import (
	"strings"
	"testing"
)

func TestApplyNativeReport(t *testing.T) {
	rel := &Release{ID: 7, Product: "p", Version: "2.0", ChunkSize: 1024, Epoch: 1, Sequence: 9, Image: Image{Size: 5000}}
	was := func(s DeploymentState) *Deployment {
		return &Deployment{Device: "d", ReleaseID: 7, Version: "2.0", State: s, Proven: true, Reason: "before", StartedAt: at(1), UpdatedAt: at(2)}
	}
	told := Device{ID: "d", RollbackWanted: true, RollbackReason: "hot", RollbackSentAt: at(3)}
	for _, c := range []struct {
		name    string
		d       Device
		r       *Release
		dep     *Deployment
		state   DeploymentState
		bytes   uint32
		reason  string
		want    DeploymentState // "": not stored
		started float64
		chunks  int
		event   string // "": none
		cleared bool   // the order
	}{
		{name: "N1 begins", r: rel, state: StateDownloading, want: StateDownloading, started: 10, event: EventState + ": downloading"},
		{name: "N1 goes on", r: rel, dep: was(StateDownloading), state: StateDownloading, bytes: 2048, want: StateDownloading, started: 1, chunks: 2, event: EventChunkReceived + ": 2 of 5 chunks"},
		{name: "N1 goes on after a bad route", r: rel, dep: was(StateDownloading), state: StateDownloading, bytes: 2048, reason: "a wrong record", want: StateDownloading, started: 1, chunks: 2, event: EventDeviceError + ": downloading: a wrong record"},
		{name: "N1 the last, which is short", r: rel, dep: was(StateDownloading), state: StateDownloading, bytes: 5000, want: StateDownloading, started: 1, chunks: 5, event: EventChunkReceived},
		{name: "N1 more bytes than there are", r: rel, dep: was(StateDownloading), state: StateDownloading, bytes: 1 << 31, want: StateDownloading, started: 1, chunks: 5, event: EventChunkReceived},
		{name: "N1 trial", r: rel, dep: was(StateRebooting), state: StateTrial, want: StateTrial, started: 1, chunks: 5, event: EventState + ": trial"},
		{name: "N1 confirmed", r: rel, dep: was(StateTrial), state: StateConfirmed, want: StateConfirmed, started: 1, chunks: 5, event: EventCompleted},
		{name: "N1 unproven", r: rel, dep: was(StateTrial), state: StateUnproven, reason: "not reached", want: StateUnproven, started: 1, event: EventState + ": unproven: not reached"},
		{name: "N1 failed", r: rel, dep: was(StateDownloading), state: StateFailed, reason: "no room", want: StateFailed, started: 1, event: EventFailed + ": failed: no room"},
		{name: "N1 skipped", r: rel, dep: was(StateOffered), state: StateSkipped, want: StateSkipped, started: 1, event: EventState + ": skipped"},
		{name: "N1 cancelled", r: rel, dep: was(StateDownloading), state: StateCancelled, want: StateCancelled, started: 1, event: EventState + ": cancelled"},
		{name: "N1 confirmed after all", r: rel, dep: was(StateReverted), state: StateConfirmed, want: StateConfirmed, started: 1, chunks: 5, event: EventCompleted},
		{name: "N1 what nobody proved", r: rel, dep: &Deployment{ReleaseID: 7, State: StateFailed, StartedAt: at(1)}, state: StateTrial, want: StateTrial, started: 10, chunks: 5, event: EventState},
		{name: "N1 no release", state: StateConfirmed, event: EventState + ": confirmed (an image without a release)"},
		{name: "N2 another try", r: rel, dep: was(StateFailed), state: StateDownloading, want: StateDownloading, started: 10, event: EventState},
		{name: "N2 by order", r: rel, d: Device{ID: "d", RetryAt: at(12)}, dep: was(StateFailed), state: StateDownloading, want: StateDownloading, started: 12, event: EventState},
		{name: "N2 by order, and it fails at once", r: rel, d: Device{ID: "d", RetryAt: at(5)}, dep: was(StateReverted), state: StateFailed, want: StateFailed, started: 10, event: EventFailed},
		{name: "N3 it went back", r: rel, d: told, dep: was(StateConfirmed), state: StateReverted, want: StateReverted, started: 1, event: EventRollback, cleared: true},
		{name: "N3 from what is not known here", d: told, state: StateReverted, event: EventState + ": reverted", cleared: true},
		{name: "N3 it can't", r: rel, d: told, dep: was(StateConfirmed), state: StateFailed, reason: "none", want: StateFailed, started: 1, event: EventFailed, cleared: true},
		{name: "N3 another release fails meanwhile", r: rel, d: told, dep: was(StateDownloading), state: StateFailed, want: StateFailed, started: 1, event: EventFailed},
		{name: "N3 before it was told", r: rel, d: Device{ID: "d", RollbackWanted: true}, dep: was(StateTrial), state: StateReverted, want: StateReverted, started: 1, event: EventRollback},
		{name: "N3 progress is no answer", r: rel, d: told, dep: was(StateConfirmed), state: StateConfirmed, want: StateConfirmed, started: 1, chunks: 5, event: EventCompleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.d.ID == "" {
				c.d.ID = "d"
			}
			d, dep, events := ApplyNativeReport(c.d, c.r, c.dep, NativeReport{State: c.state, Bytes: c.bytes, Reason: c.reason}, at(10))
			if dep.State != c.want || c.want != "" && (!dep.StartedAt.Equal(at(c.started)) || dep.ChunksReceived != c.chunks || !dep.Proven || !dep.UpdatedAt.Equal(at(10)) || dep.ReleaseID != 7 || dep.Reason != c.reason) {
				t.Errorf("%+v", dep)
			}
			if len(events) != 1 || !strings.HasPrefix(events[0].Name+": "+events[0].Detail, c.event) || !events[0].Proven || events[0].Device != "d" {
				t.Errorf("%+v", events)
			}
			if !d.Signed || !d.LastSeen.Equal(at(10)) || d.RollbackWanted != (c.d.RollbackWanted && !c.cleared) {
				t.Errorf("%+v", d)
			}
			if want := ""; c.state == StateConfirmed && c.r != nil {
				if want = "2.0"; d.RunningVersion != want {
					t.Errorf("%+v", d)
				}
			}
		})
	}
	// Progress that shows nothing new is not logged.
	dep := was(StateDownloading)
	dep.ChunksReceived = 2
	if _, next, events := ApplyNativeReport(Device{ID: "d"}, rel, dep, NativeReport{State: StateDownloading, Bytes: 2500}, at(10)); len(events) != 0 || !next.UpdatedAt.Equal(at(10)) {
		t.Errorf("%+v %+v", next, events)
	}
}
