package fleet

// nativeSide is a device on the native wire, for Plan.decide.
type nativeSide struct {
	o       *NativeOffers
	d       *NativeDevice
	a       *NativeAsk
	product string
	picked  *nativeRelease // by pick, for the questions that follow it
}

func (s *nativeSide) pick(release int64) (*Release, Verdict, string) {
	r, some := s.o.best(s.product, *s.a, func(r *nativeRelease) bool { return s.o.isBuild(release, r) })
	if s.picked = r; r != nil {
		return &r.Release, "", ""
	}
	if some {
		return nil, VerdictHardware, "its release is for other hardware than " + HardwareText(s.a.Hardware)
	}
	return nil, VerdictNoRelease, "its release is withdrawn, or not signed"
}

func (s *nativeSide) has(r *Release) string {
	switch {
	case string(s.a.Image) == string(r.Image.Digest[:]):
		// Issued anew it has other numbers, and a device that runs it takes nothing and says nothing.
		return "the device runs the image of " + r.Version
	case newer(r.Epoch, r.Sequence, s.a.Epoch, s.a.Sequence):
		return ""
	case r.Epoch == s.a.Epoch && r.Sequence == s.a.Sequence:
		return r.Version + " is confirmed on this device"
	}
	return "the device confirmed a later release than " + r.Version
}

func (s *nativeSide) terms(r *Release, rollout int64, t *Trace) (rule, why string) {
	return s.picked.terms.judgeRelease(r, rollout, t)
}

func (s *nativeSide) deployment(*Release) *Deployment { return s.o.deploymentOf(s.d, s.picked) }

func (s *nativeSide) unfit(*Release) string {
	if why := s.o.unfit(s.picked, s.product, *s.a); why != "" {
		return why
	}
	if s.picked.stream(s.a.Chunk) == nil {
		return s.picked.noStream(s.a.Chunk)
	}
	return ""
}

func (s *nativeSide) busy(r *Release) bool {
	at := s.o.inProgress(s.product, s.a.InProgress)
	return at != nil && newer(at.Epoch, at.Sequence, r.Epoch, r.Sequence) && at.State == ReleasePublished && !s.o.takenBack(s.product, at)
}

func (s *nativeSide) bytes(*Release) int64 {
	if m := s.picked.stream(s.a.Chunk); m != nil {
		if small := s.o.derived(s.d, s.picked, s.a, m); small != nil {
			return small.sent
		}
		return m.Length
	}
	return s.picked.Image.Size
}
