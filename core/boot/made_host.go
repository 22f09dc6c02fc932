//go:build !tinygo

package boot

// roomMade: a host lends room, and on many goroutines.
const roomMade = true

func makesRoom() {}
