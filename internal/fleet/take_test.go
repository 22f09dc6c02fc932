package fleet

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var (
	relA = &Release{ID: 1, Product: "p", Version: "1.0", ChunkSize: 1024, Image: Image{Size: 10 * 1024}, State: ReleasePublished}
	relB = rel10 // 2.0
	relC = &Release{ID: 4, Product: "p", Version: "4.0", ChunkSize: 1024, Image: Image{Size: 20 * 1024}, State: ReleasePublished}
)

func cand(r *Release, s DeploymentState) Candidate {
	if s == "" {
		return Candidate{Release: r}
	}
	return Candidate{Release: r, Deployment: &Deployment{Device: "d", ReleaseID: r.ID, Version: r.Version, State: s, Proven: true,
		ChunksTotal: r.Chunks(), StartedAt: at(float64(r.ID)), UpdatedAt: at(float64(r.ID) + 0.5)}}
}

// Which deployment a report is about, since v1 reports name none.
func TestTakeReportChooses(t *testing.T) {
	told := Device{ID: "d", Signed: true, RunningVersion: "2.0", RollbackWanted: true, RollbackReason: "recall", RollbackSentAt: at(50)}
	plain := Device{ID: "d", Signed: true, RunningVersion: "1.0"}
	for _, c := range []struct {
		name    string
		device  Device
		c       Candidates
		rep     Report
		release int64 // of the deployment that changed; 0: none
		state   DeploymentState
		cleared bool // the order to go back
		running string
	}{
		{"the offer", plain, Candidates{Offer: cand(relB, "")}, chunks(1, 10), 2, StateDownloading, false, "1.0"},
		{"nothing is on offer: the latest", plain, Candidates{Latest: cand(relB, StateRebooting)},
			Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, 2, StateConfirmed, false, "2.0"},
		{"nothing at all", plain, Candidates{}, Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, 0, "", false, "2.0"},
		{"another came on offer meanwhile: named", plain, Candidates{Offer: cand(relC, ""), Named: cand(relB, StateRebooting), Latest: cand(relB, StateRebooting)},
			Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, 2, StateConfirmed, false, "2.0"},
		{"another came on offer meanwhile: not named", plain, Candidates{Offer: cand(relC, ""), Latest: cand(relB, StateRebooting)},
			Report{BootStatus: ptr("success")}, 2, StateConfirmed, false, "1.0"},
		{"an unknown version touches nothing", plain, Candidates{Offer: cand(relB, StateDownloading)},
			Report{BootStatus: ptr("success"), NewVersion: ptr("0.1")}, 0, "", false, "0.1"},
		{"the trial of the offer failed", plain, Candidates{Offer: cand(relB, StateRebooting), Latest: cand(relB, StateRebooting)},
			Report{BootStatus: ptr("failed"), Rollback: ptr(true), NewVersion: ptr("2.0")}, 2, StateReverted, false, "1.0"},
		{"the client names what it fell back to", plain, Candidates{Offer: cand(relB, StateRebooting), Named: cand(relA, StateConfirmed), Latest: cand(relB, StateRebooting)},
			Report{Rollback: ptr(true), NewVersion: ptr("1.0")}, 2, StateReverted, false, "1.0"},
		{"named and of no deployment", plain, Candidates{Offer: cand(relB, StateRebooting)},
			Report{Rollback: ptr(true), NewVersion: ptr("0.9")}, 2, StateReverted, false, "1.0"},
		{"named, and something newer was published", plain, Candidates{Offer: cand(relC, ""), Named: cand(relB, StateConfirmed), Latest: cand(relB, StateConfirmed)},
			Report{Rollback: ptr(true), NewVersion: ptr("2.0")}, 2, StateReverted, false, "1.0"},
		{"silent failure at the first try", plain, Candidates{Offer: cand(relB, "")},
			Report{Rollback: ptr(true)}, 2, StateReverted, false, "1.0"},

		{"by order, nothing named", told, Candidates{Offer: cand(relC, ""), Latest: cand(relB, StateConfirmed)},
			Report{Rollback: ptr(true), Error: ptr("ordered")}, 2, StateReverted, true, "2.0"},
		{"by order, names what runs now", told, Candidates{Offer: cand(relC, ""), Named: cand(relA, StateConfirmed), Latest: cand(relB, StateConfirmed)},
			Report{Rollback: ptr(true), NewVersion: ptr("1.0")}, 2, StateReverted, true, "2.0"},
		{"by order, names a version of no deployment", told, Candidates{Offer: cand(relC, ""), Latest: cand(relB, StateConfirmed)},
			Report{Rollback: ptr(true), NewVersion: ptr("0.9")}, 2, StateReverted, true, "2.0"},
		{"by order, says only what runs now", told, Candidates{Offer: cand(relC, ""), Named: cand(relA, StateConfirmed), Latest: cand(relB, StateConfirmed)},
			Report{BootStatus: ptr("success"), NewVersion: ptr("1.0")}, 2, StateReverted, true, "1.0"},
		{"by order, still runs the same", told, Candidates{Offer: cand(relB, StateConfirmed), Latest: cand(relB, StateConfirmed)},
			Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, 2, StateConfirmed, false, "2.0"},
		{"by order, and can't", told, Candidates{Offer: cand(relC, StateDownloading), Latest: cand(relC, StateDownloading)},
			Report{Error: ptr("there is none")}, 0, "", true, "2.0"},
		{"by order, a boot and no version", told, Candidates{Offer: cand(relB, StateConfirmed), Latest: cand(relB, StateConfirmed)},
			Report{BootStatus: ptr("success")}, 0, "", true, "2.0"},
		{"by order, a failed boot and no version", told, Candidates{Offer: cand(relB, StateConfirmed), Latest: cand(relB, StateConfirmed)},
			Report{BootStatus: ptr("failed")}, 2, StateFailed, true, "2.0"},
		{"by order, a trial that was on its way fails", told, Candidates{Offer: cand(relC, StateRebooting), Latest: cand(relC, StateRebooting)},
			Report{BootStatus: ptr("failed")}, 4, StateFailed, true, "2.0"},
		{"by order, a trial that was on its way succeeds", told, Candidates{Offer: cand(relC, StateRebooting), Latest: cand(relC, StateRebooting)},
			Report{BootStatus: ptr("success")}, 4, StateConfirmed, false, "2.0"},
		{"by order, a download that was on its way reboots", told, Candidates{Offer: cand(relC, StateVerifying), Latest: cand(relC, StateVerifying)},
			Report{BootStatus: ptr("pending_reboot")}, 4, StateRebooting, false, "2.0"},
		{"an order does not turn progress into an answer", told, Candidates{Offer: cand(relC, StateDownloading), Latest: cand(relC, StateDownloading)},
			chunks(3, 20), 4, StateDownloading, false, "2.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dev, dep, events := TakeReport(c.device, c.c, c.rep, true, at(60))
			changed := int64(0)
			if dep.State != "" {
				changed = dep.ReleaseID
			}
			if before := c.c.Offer.Deployment; c.release == 0 && before != nil && dep == *before {
				changed = 0
			}
			if changed != c.release || c.release != 0 && dep.State != c.state {
				t.Errorf("deployment %+v", dep)
			}
			if dev.RunningVersion != c.running || dev.RollbackWanted == (c.cleared || !c.device.RollbackWanted) || !dev.Signed {
				t.Errorf("device %+v", dev)
			}
			if c.cleared && (dev.RollbackReason != "" || !dev.RollbackSentAt.IsZero()) {
				t.Errorf("the order left %+v", dev)
			}
			if len(events) == 0 {
				t.Error("no event")
			}
		})
	}
}

// Without proof nothing of a device that has proven itself changes; one that
// never did is shown as it says, and an order that it was given is over.
func TestTakeReportUnproven(t *testing.T) {
	order := Device{ID: "d", RunningVersion: "2.0", RollbackWanted: true, RollbackReason: "recall", LastSeen: at(1)}
	back := Report{Rollback: ptr(true), BootStatus: ptr("success"), NewVersion: ptr("1.0")}
	c := Candidates{Offer: cand(relB, StateConfirmed), Latest: cand(relB, StateConfirmed)}

	signed := order
	signed.Signed, signed.RollbackSentAt = true, at(2)
	if dev, dep, events := TakeReport(signed, c, back, false, at(60)); !reflect.DeepEqual(dev, signed) || dep != *c.Offer.Deployment || len(events) == 0 {
		t.Errorf("forged: %+v, %+v", dev, dep)
	}

	dev, _, _ := TakeReport(order, c, back, false, at(60))
	if dev.RunningVersion != "1.0" || !dev.RollbackWanted || dev.Signed || !dev.LastSeen.Equal(at(60)) {
		t.Errorf("silent, before it was told: %+v", dev)
	}
	order.RollbackSentAt = at(2)
	if dev, _, _ = TakeReport(order, c, back, false, at(60)); dev.RollbackWanted {
		t.Errorf("silent, told and back: %+v", dev)
	}
}

func TestTakeReportRetry(t *testing.T) {
	dev := Device{ID: "d", Signed: true}
	bad := cand(relB, StateReverted) // ended at 2.5
	c := Candidates{Offer: bad, Latest: bad}
	outcome := Report{BootStatus: ptr("failed"), Rollback: ptr(true), Error: ptr("crashed again")}

	// No order: what ended stays ended.
	if _, dep, _ := TakeReport(dev, c, chunks(1, 10), true, at(60)); dep != *bad.Deployment {
		t.Errorf("without an order: %+v", dep)
	}
	dev.RetryAt = NextRetry(at(59.5), relB.PublishedAt)
	// The old outcome, said again because its acknowledgement was lost.
	if _, dep, _ := TakeReport(dev, c, outcome, true, at(59.8)); dep != *bad.Deployment || OfferFor(dev, relB, &dep, at(60)).Verdict != VerdictRetry {
		t.Errorf("an old outcome used the order up: %+v", dep)
	}
	// The new try.
	_, dep, events := TakeReport(dev, c, chunks(1, 10), true, at(59.9))
	if dep.State != StateDownloading || dep.ChunksReceived != 1 || !dep.StartedAt.Equal(dev.RetryAt) || names(events) != "chunk_received" {
		t.Errorf("by order: %+v", dep)
	}
	dep.State = StateRebooting
	again := Candidate{Release: relB, Deployment: &dep}
	_, ended, _ := TakeReport(dev, Candidates{Offer: again, Latest: again}, outcome, true, at(59.95))
	if ended.State != StateReverted || OfferFor(dev, relB, &ended, at(61)).Verdict != VerdictFoundBad {
		t.Errorf("found bad twice, within the second of the order: %+v", ended)
	}
	// A new try of which only the outcome was heard.
	if _, dep, _ := TakeReport(dev, c, outcome, true, dev.RetryAt.Add(retryGrace)); dep.Reason != "crashed again" || OfferFor(dev, relB, &dep, at(999)).Verdict != VerdictFoundBad {
		t.Errorf("the outcome alone: %+v", dep)
	}
	// And one that failed before its first chunk.
	if _, dep, _ := TakeReport(dev, c, Report{Error: ptr("no"), NewVersion: ptr("2.0")}, true, at(70)); dep.State != StateFailed || RetryDue(dev, dep) {
		t.Errorf("failed at once: %+v", dep)
	}
}

// A device lives through releases, orders and reports; forged ones are mixed in.
// Whatever happens, the forged ones leave no trace in what decides.
func TestForgedReportsDecideNothing(t *testing.T) {
	rels := []*Release{relA, relB, relC}
	type world struct {
		dev  Device
		deps map[int64]Deployment
	}
	apply := func(w *world, offer *Release, rep Report, proven bool, now time.Time) {
		var c Candidates
		get := func(r *Release) Candidate {
			if d, ok := w.deps[r.ID]; ok {
				return Candidate{Release: r, Deployment: &d}
			}
			return Candidate{Release: r}
		}
		if offer != nil {
			c.Offer = get(offer)
		}
		for _, r := range rels {
			if k := get(r); k.Deployment != nil {
				if l := c.Latest.Deployment; l == nil || k.Deployment.Proven && !l.Proven || k.Deployment.Proven == l.Proven && !k.Deployment.StartedAt.Before(l.StartedAt) {
					c.Latest = k
				}
			}
			if rep.NewVersion != nil && *rep.NewVersion == r.Version {
				c.Named = get(r)
			}
		}
		dev, dep, _ := TakeReport(w.dev, c, rep, proven, now)
		w.dev = dev
		if dep.State != "" {
			w.deps[dep.ReleaseID] = dep
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		clean := &world{Device{ID: "d", Signed: true}, map[int64]Deployment{}}
		dirty := &world{Device{ID: "d", Signed: true}, map[int64]Deployment{}}
		for i, n := 0, rapid.IntRange(1, 15).Draw(t, "steps"); i < n; i++ {
			now := at(float64(i+1) * 40)
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				for _, w := range []*world{clean, dirty} {
					w.dev.RollbackWanted, w.dev.RollbackReason, w.dev.RollbackSentAt = true, "why", now
				}
			case 1:
				for _, w := range []*world{clean, dirty} {
					w.dev.RetryAt = NextRetry(now, w.dev.RetryAt)
				}
			case 2, 3:
				rep := genReport("1.0", "2.0", "4.0").Draw(t, fmt.Sprint("forged ", i))
				apply(dirty, rapid.SampledFrom(append(rels, nil)).Draw(t, "offer"), rep, false, now)
			default:
				rep := genReport("1.0", "2.0", "4.0").Draw(t, fmt.Sprint("report ", i))
				offer := rapid.SampledFrom(append(rels, nil)).Draw(t, "offer")
				apply(clean, offer, rep, true, now)
				apply(dirty, offer, rep, true, now)
			}
			if !reflect.DeepEqual(clean.dev, dirty.dev) {
				t.Fatalf("device: %+v, not %+v", dirty.dev, clean.dev)
			}
			for _, r := range rels {
				a, b := clean.deps[r.ID], dirty.deps[r.ID]
				if b.Proven && a != b {
					t.Fatalf("deployment of %s: %+v, not %+v", r.Version, b, a)
				}
				if x, y := OfferFor(clean.dev, r, &a, now), OfferFor(dirty.dev, r, &b, now); x.Verdict != y.Verdict || !x.PublishedAt.Equal(y.PublishedAt) {
					t.Fatalf("offer of %s: %+v, not %+v", r.Version, y, x)
				}
			}
		}
	})
}
