package v1

import (
	"net"
	"net/http"
	"strings"
)

// forwarding are headers that proxies add: a request that has one came from
// elsewhere, whatever its address says.
// X-Forwarded and all that begin with it are looked for too.
var forwarding = []string{"Forwarded", "Via", "X-Real-Ip", "Cf-Connecting-Ip", "True-Client-Ip", "X-Client-Ip",
	"X-Cluster-Client-Ip", "X-Original-Forwarded-For", "Fastly-Client-Ip", "Fly-Client-Ip"}

// notLocal says why a request does not come from a script on this machine, "" if
// it does. The Host is checked against DNS rebinding, Origin and Sec-Fetch-Site
// against pages in a browser.
func notLocal(r *http.Request) string {
	if !loopbackHost(r.RemoteAddr) {
		return "the caller is not on loopback"
	}
	if !loopbackHost(r.Host) {
		return "the Host is not loopback"
	}
	if len(r.Header.Values("Origin")) > 0 || len(r.Header.Values("Sec-Fetch-Site")) > 0 {
		return "a browser asks"
	}
	for _, h := range forwarding {
		if len(r.Header.Values(h)) > 0 {
			return "a proxy forwards"
		}
	}
	for h := range r.Header {
		if strings.HasPrefix(h, "X-Forwarded") {
			return "a proxy forwards"
		}
	}
	return ""
}

func loopbackHost(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = hostPort
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
