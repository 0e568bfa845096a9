#!/usr/bin/env bash
# User data of a GPU instance (Deep Learning Base AMI, Amazon Linux 2023 or Ubuntu): pulls the image,
# runs `docker compose up train` between two S3 URIs, and shuts the instance down.
#
# Fill in the first four lines in a copy; deploy/README.md has the command that starts the instance.
# Never write credentials here: the instance profile has them, and user data can be read by anyone
# on the machine.
set -euo pipefail

IMAGE=${IMAGE-}           # URI with digest that build_and_push.sh printed
INPUT_URI=${INPUT_URI-}   # s3://bucket/slices
OUTPUT_URI=${OUTPUT_URI-} # s3://bucket/runs/first; the same one again goes on where it stopped
AT_END=${AT_END-shutdown} # shutdown (also after a failure: a GPU that idles costs as much), or stay

# Any setting of `mrigan train --help`, a line each: MRIGAN_EPOCHS=300
SETTINGS=${SETTINGS-}

LEAST_DRIVER=${LEAST_DRIVER-580} # 525 for the CUDA 12.6 image
FOLDER=${FOLDER-/var/lib/mrigan}
LOG=${LOG-/var/log/mrigan.log}
CONSOLE=${CONSOLE-/dev/console} # `aws ec2 get-console-output` shows it
MINUTES_TO_READ=${MINUTES_TO_READ-5}

say() {
    echo "$(date -u +%FT%TZ) user-data: $1"
}

fail() {
    say "$1"
    exit "${2:-2}"
}

finish() {
    local status=$?
    say "ended status=$status log=$LOG"
    if [ "$AT_END" != stay ]; then
        say "shutting down in $MINUTES_TO_READ minutes; \`sudo shutdown -c\` keeps the machine"
        shutdown -h "+$MINUTES_TO_READ"
    fi
}

check() {
    [[ $IMAGE == *.dkr.ecr.*.amazonaws.com* ]] || fail "IMAGE: '$IMAGE' is no image in ECR"
    [[ $INPUT_URI == s3://?* ]] || fail "INPUT_URI: '$INPUT_URI' is no s3:// URI"
    [[ $OUTPUT_URI == s3://?* ]] || fail "OUTPUT_URI: '$OUTPUT_URI' is no s3:// URI"
    [[ $AT_END == shutdown || $AT_END == stay ]] || fail "AT_END: '$AT_END' is neither shutdown nor stay"
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader) ||
        fail "nvidia-smi: no GPU answers; use a GPU instance and a Deep Learning Base AMI"
    driver=${driver%%$'\n'*} # a line for each GPU
    [ "${driver%%.*}" -ge "$LEAST_DRIVER" ] ||
        fail "driver $driver: the image needs $LEAST_DRIVER or newer; use a newer AMI, or the CUDA 12.6 image"
    say "driver=$driver"
}

install_compose() {
    docker compose version && return
    if command -v apt-get; then
        apt-get update && apt-get install -y docker-compose-plugin
    else
        dnf install -y docker-compose-plugin
    fi
    docker compose version ||
        fail "docker compose: not there and not in the AMI's repositories; use an AMI that has it"
}

# The `train` service of docker-compose.yml and docker-compose.gpu.yml, with S3 in place of SeaweedFS.
write_compose() {
    mkdir -p "$FOLDER"
    cd "$FOLDER"
    cat >docker-compose.yml <<'COMPOSE'
name: mrigan
services:
  train:
    image: ${IMAGE:?}
    env_file: [train.env]
    user: "10001:10001"
    read_only: true
    tmpfs: ["/tmp"]
    cap_drop: ["ALL"]
    security_opt: ["no-new-privileges:true"]
    volumes: ["cache:/cache"]
    shm_size: 8gb
    ulimits:
      memlock: -1
      stack: 67108864
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              count: all
              capabilities: [gpu]
    logging:
      driver: json-file
      options: {max-size: "10m", max-file: "3"}
    stop_grace_period: 120s
    restart: "no"
volumes:
  cache:
COMPOSE
    cat >train.env <<SETTINGS
MRIGAN_INPUT_URI=$INPUT_URI
MRIGAN_OUTPUT_URI=$OUTPUT_URI
MRIGAN_CACHE_DIR=/cache
MRIGAN_DEVICE=cuda
AWS_REGION=$region
$SETTINGS
SETTINGS
}

main() {
    check
    local registry=${IMAGE%%/*} status=0
    region=${registry#*.dkr.ecr.}
    region=${region%%.*}
    export IMAGE
    install_compose
    write_compose
    aws ecr get-login-password --region "$region" |
        docker login --username AWS --password-stdin "$registry"
    docker compose pull --quiet train
    say "training image=$IMAGE input=$INPUT_URI output=$OUTPUT_URI"
    docker compose up --no-log-prefix --exit-code-from train train || status=$?
    if [ "$status" -eq 5 ]; then
        say "storage failed: are the role's prefixes right, and is the metadata's hop limit 2?"
    fi
    return "$status"
}

export HOME="${HOME:-/root}" # cloud-init sets none, and docker keeps its login there
[ -w "$CONSOLE" ] || CONSOLE=/dev/null
exec > >(tee -a "$LOG" "$CONSOLE") 2>&1
trap finish EXIT
main
