#!/usr/bin/env bash
# One Apache Kafka broker (KRaft, a single node) on 127.0.0.1, for tests and for trying things out.
#
#   broker.sh up        fetches the jars, makes a new empty broker and starts it
#   broker.sh stop      stops it in good order, keeps its data
#   broker.sh kill      SIGKILL, keeps its data
#   broker.sh start     starts it again on its data
#   broker.sh down      stops it and removes its data
#   broker.sh env       what a client has to know, as shell variables
#
# RUMLEDGER_TEST_KAFKA_DIR   where it lives    [~/.cache/rumledger/kafka]
# RUMLEDGER_TEST_KAFKA_PORT  its first port    [19092]; the four after it are used as well;
#                            below the range that the system gives to outgoing connections
# RUMLEDGER_TEST_KAFKA_JVM   options of the Java machine, instead of those that start it quickly
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${RUMLEDGER_TEST_KAFKA_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/kafka}
port=${RUMLEDGER_TEST_KAFKA_PORT:-19092}
libs=$dir/libs
run=$dir/run-$port
cluster=cnVtbGVkZ2VyLXRlc3RzMQ
# Small heap and the quick compiler only: it starts sooner, and tests need no throughput record.
jvm=(-Xms256m -Xmx512m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+ExitOnOutOfMemoryError
  -XX:-UsePerfData -Djava.awt.headless=true)
# Whoever measures wants what a broker has in production.
read -ra given <<<"${RUMLEDGER_TEST_KAFKA_JVM:-}"
if [ ${#given[@]} -gt 0 ]; then jvm=("${given[@]}" -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true); fi

fetch() {
  local stamp=$libs/.pom
  if ! cmp -s "$here/pom.xml" "$stamp"; then
    command -v mvn >/dev/null || { echo "broker.sh: maven is not installed" >&2; exit 1; }
    rm -rf "$libs"
    mvn -B -ntp -q -f "$here/pom.xml" \
      org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DoutputDirectory="$libs" -DincludeScope=runtime
    cp "$here/pom.xml" "$stamp"
  fi
}

pid() { cat "$run/pid" 2>/dev/null || true; }
alive() { local p; p=$(pid); [ -n "$p" ] && kill -0 "$p" 2>/dev/null; }
accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }

# A certificate authority, and a certificate for the broker's TLS listeners.
certificates() {
  local tls=$run/tls
  mkdir -p "$tls"
  openssl req -x509 -newkey rsa:2048 -nodes -sha256 -days 30 -subj '/CN=rumledger tests' \
    -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign' \
    -keyout "$tls/ca.key" -out "$tls/ca.pem" 2>/dev/null
  openssl req -new -nodes -newkey rsa:2048 -subj '/CN=broker' \
    -keyout "$tls/broker.key" -out "$tls/broker.csr" 2>/dev/null
  openssl x509 -req -in "$tls/broker.csr" -CA "$tls/ca.pem" -CAkey "$tls/ca.key" -CAcreateserial \
    -days 30 -sha256 -extfile <(printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n') \
    -out "$tls/broker.pem" 2>/dev/null
  cat "$tls/broker.key" "$tls/broker.pem" "$tls/ca.pem" >"$tls/keystore.pem"
}

configure() {
  local h=127.0.0.1 tls=$((port + 2)) sasl=$((port + 3)) oauth=$((port + 4)) jaas=org.apache.kafka.common.security
  cat >"$run/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$h:$((port + 1))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://$h:$port,CONTROLLER://$h:$((port + 1)),SSL://$h:$tls,SASL_SSL://$h:$sasl,OAUTH://$h:$oauth
advertised.listeners=PLAINTEXT://$h:$port,SSL://$h:$tls,SASL_SSL://$h:$sasl,OAUTH://$h:$oauth
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,OAUTH:SASL_SSL
inter.broker.listener.name=PLAINTEXT
ssl.keystore.type=PEM
ssl.keystore.location=$run/tls/keystore.pem
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=$jaas.plain.PlainLoginModule required user_meter="meter-secret";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=$jaas.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=$jaas.scram.ScramLoginModule required;
listener.name.oauth.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oauth.oauthbearer.sasl.jaas.config=$jaas.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.oauth.oauthbearer.sasl.server.callback.handler.class=$jaas.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler
log.dirs=$run/data
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
num.network.threads=2
num.io.threads=4
log.cleaner.threads=1
log.cleaner.dedupe.buffer.size=16777216
auto.create.topics.enable=false
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
log.retention.check.interval.ms=1000
log.initial.task.delay.ms=500
PROPERTIES
  cat >"$run/log4j2.properties" <<'PROPERTIES'
status = warn
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = OUT
PROPERTIES
}

java_() { java "-Dlog4j2.configurationFile=$run/log4j2.properties" -cp "$libs/*" "$@"; }

start() {
  if alive || accepts; then
    echo "broker.sh: something listens on 127.0.0.1:$port already" >&2
    exit 1
  fi
  mkdir -p "$run/tmp"
  cd "$run"
  setsid nohup java "${jvm[@]}" "-Djava.io.tmpdir=$run/tmp" \
    "-Dlog4j2.configurationFile=$run/log4j2.properties" \
    -cp "$libs/*" kafka.Kafka "$run/server.properties" >>"$run/log" 2>&1 </dev/null &
  echo $! >"$run/pid"
  for _ in $(seq 1 600); do
    accepts && return
    alive || break
    sleep 0.1
  done
  echo "broker.sh: the broker did not start:" >&2
  tail -n 20 "$run/log" >&2
  exit 1
}

end() {
  local p
  p=$(pid)
  [ -n "$p" ] || return 0
  kill "-$1" "$p" 2>/dev/null || true
  for _ in $(seq 1 300); do
    kill -0 "$p" 2>/dev/null || { rm -f "$run/pid"; return 0; }
    sleep 0.1
  done
  kill -KILL "$p" 2>/dev/null || true
  rm -f "$run/pid"
}

case ${1:-} in
  up)
    if alive; then
      echo "it runs already"
      exit 0
    fi
    fetch
    rm -rf "$run"
    mkdir -p "$run/data"
    certificates
    configure
    java_ -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 kafka.tools.StorageTool format \
      -t "$cluster" -c "$run/server.properties" \
      --add-scram 'SCRAM-SHA-256=[name=scram,password=scram-secret]' \
      --add-scram 'SCRAM-SHA-512=[name=scram,password=scram-secret]' >"$run/format.log" 2>&1 ||
      { cat "$run/format.log" >&2; exit 1; }
    start
    ;;
  start) start ;;
  stop) end TERM ;;
  kill) end KILL ;;
  down)
    end TERM
    rm -rf "$run"
    ;;
  env)
    echo "RUMLEDGER_TEST_BROKERS=127.0.0.1:$port"
    echo "RUMLEDGER_TEST_TLS_BROKERS=127.0.0.1:$((port + 2))"
    echo "RUMLEDGER_TEST_SASL_BROKERS=127.0.0.1:$((port + 3))"
    echo "RUMLEDGER_TEST_OAUTH_BROKERS=127.0.0.1:$((port + 4))"
    echo "RUMLEDGER_TEST_CA=$run/tls/ca.pem"
    ;;
  *)
    sed -n '2,13p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
