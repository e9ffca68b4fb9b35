"""Command lines that are refused; the option at fault comes last. Names in braces are those of tiny_places.py."""

RUN = "pretrain --corpus {corpus} --out {new} --model 2x32 --sequence-lengths 32 64 --probe-seconds 0"
PLAN = "plan --no-probe --batch-size 8 --samples 160 --model 2x32"
PLANNED = "plan --no-probe --corpus {corpus} --model 2x32 --sequence-lengths 32 64"
CLUSTER = "plan --batch-size 1024 --samples 102400 --model mini --cluster dgx-a100"
SQUAD = "squad {model} --train {squad} --dev {squad} --out {new} --sequence-length 80"
GLUE = "glue {model} rte --data {glue} --out {new} --sequence-length 80"

FOLLOWED = f"""
inspect {{corpus}} --sequence-length 128
inspect {{corpus}} --lengths 4
inspect {{corpus}} --mlm-probability 2
inspect {{corpus}} --masking words
inspect {{corpus}} --pairs sopp
inspect {{corpus}} --length 128
inspect {{text}}
inspect nowhere
prepare {{fields}} --out {{new}}
prepare {{table}} --out {{new}}
prepare {{fields}} --out {{new}} --text-field id
prepare {{html}} --out {{new}}
prepare {{utf16}} --out {{new}}
prepare {{latin}} --out {{new}} --encoding nonsense
prepare {{latin}} --out {{new}}
prepare {{accents}} --out {{new}}
prepare {{words}} --out {{new}}
prepare {{text}} --out {{new}} --vocab nowhere
prepare {{text}} --out {{new}} --vocab {{cased}}
prepare {{text}} --out {{new}} --vocab {{model}} --cased
prepare {{text}} --out {{new}} --vocab {{model}} --strip-accents no
prepare {{text}} --out {{new}} --vocab-size 10
prepare {{text}} --out {{new}} --vocab-size 9999999999
prepare {{text}} --out {{new}} --workers -1
prepare {{text}} --out {{new}} --workers 5000
prepare {{text}} --out {{new}} --language english
prepare {{text}} --out {{new}} --validation-fraction 1
prepare {{text}} --out {{new}} --max-word-length 0
prepare {{text}} --out {{new}} --deduplicate all
prepare {{text}} --out {{new}} --strip-accents maybe
prepare {{text}} --out {{new}} --text-format xml
prepare {{text}} --out {{new}} --join-lines --one-sentence-per-line
prepare {{text}} --out {{new}} --output x
prepare {{text}} --out {{new}} --validation .1
prepare {{text}} --out {{new}} --vocab-size 8.5
prepare {{text}} --out {{new}} --vocab-size many
prepare {{text}}
prepare --corpus {{text}} --out {{new}}
{PLANNED} --samples 160 --batch-size 0
{PLANNED} --samples 160 --batch-size 4m
{PLANNED} --batch-size 8 --epochs 0
{PLANNED} --batch-size 8 --samples 0
{PLANNED} --batch-size 8 --samples 160 --model 0x32
{PLANNED} --batch-size 8 --samples 160 --model huge
{RUN} --batch-size 8 --samples 160 --epochs 1
{RUN} --batch-size 8 --samples 160 --init-from {{model}}
{RUN} --batch-size 8 --samples 160 --init-from {{cased}}
{RUN} --batch-size 8 --samples 160 --init-from nowhere
{PLANNED} --batch-size 8 --samples 160 --seed -1
{RUN} --batch-size 8 --samples 160 --threads 4096
{PLANNED} --batch-size 8 --samples 160 --optimizer sgd
{RUN} --batch-size 8 --samples 160 --restarts -1
{PLANNED} --batch-size 8 --samples 160 --warmup-ratio 3
{PLANNED} --batch-size 8 --samples 160 --dropout 1
{PLANNED} --batch-size 8 --samples 160 --learning-rate -1
{PLANNED} --batch-size 8 --samples 160 --learning-rate-multiplier 0
{PLANNED} --batch-size 8 --samples 160 --micro-batch-size 0
{PLANNED} --batch-size 8 --samples 160 --precision float16
{PLANNED} --batch-size 8 --samples 160 --masking words
{PLANNED} --batch-size 8 --samples 160 --mlm-probability 1
{PLANNED} --batch-size 8 --samples 160 --mlm-probability-end 0
{RUN} --batch-size 8 --samples 160 --timeout-minutes 0
{RUN} --batch-size 8 --samples 160 --probe-seconds -1
{PLANNED} --batch-size 8 --samples 160 --sequence-lengths 4 8
{PLANNED} --batch-size 8 --samples 160 --sequence-lengths 32 64 128
{PLANNED} --batch-size 100000 --samples 160000
{PLANNED} --batch-size 4096 --samples 100
{RUN} --batch-size 8 --samples 160 --reduce-dtype float16
{RUN} --batch-size 8 --samples 160 --reduce-dtype bfloat16 --deterministic
{RUN} --batch-size 8 --samples 160 --shard --deterministic
{RUN} --batch-size 8 --samples 160 --shard --optimizer muon
{RUN} --batch-size 8 --samples 160 --on-spike explode
{RUN} --batch-size 8 --samples 160 --activation-checkpointing always
{RUN} --batch-size 8 --samples 160 --evaluation-samples -1
{PLANNED} --batch-size 8 --samples 160 --pairs nps
pretrain --corpus {{text}} --out {{new}} --batch-size 8
pretrain --corpus {{corpus}} --batch-size 8
pretrain --corpus nowhere --out {{new}} --batch-size 8
plan --no-probe --model 2x32
plan --no-probe --batch-size 8 --model tiny
plan --no-probe --batch-size 8 --epochs 1
plan --batch-size all
plan --recipe paper --batch-size all --cluster dgx-a100
plan --recipe paper --batch-size 77 --no-probe
plan --recipe paper --samples 100 --no-probe
{PLAN} --chips 4
{PLAN} --dry-run 2 --cluster dgx-a100
{PLAN} --dry-run 1
{PLAN} --dry-run 5000
{PLAN} --dry-run 16
{PLAN} --chips 2 --cluster dgx
{PLAN} --probe-seconds -1
{PLAN} --samples 1.5
{PLAN} --learning-rate fast
{PLAN} --plot x.svg
plan --corpus {{corpus}} --hours 0
{CLUSTER} --chips 8 --try-batch-sizes 0
{CLUSTER} --chips 0
{CLUSTER} --chips 5000
{CLUSTER} --chips 8 --budget 3
{CLUSTER} --chips 8 --hours 0
{CLUSTER} --chips 8 --price-per-chip-hour 0
{CLUSTER} --chips 8 --text-gigabytes 3
plan --batch-size 1024 --model mini --cluster dgx-a100 --epochs 2 --chips 8 --text-gigabytes -1
sweep {{text}}
squad
squad {{model}} --train {{squad}} --dev {{squad}} --out {{new}}
squad {{model}} --train {{squad}} --dev {{squad}}
squad {{cased}} --out {{new}} --train {{squad}} --dev {{squad}} --sequence-length 80
squad {{model}} --dev {{squad}} --score {{answers}}
squad --null-threshold 1 --score {{list}} --dev {{squad}}
{SQUAD} --null-odds {{list}}
{SQUAD} --batch-size 0
{SQUAD} --learning-rate 0
{SQUAD} --learning-rate 1e-3 --learning-rates 1e-3 1e-4
{SQUAD} --seeds 0
{SQUAD} --epochs 0
{SQUAD} --sequence-length 40 --question-length 64
{SQUAD} --train-questions 0
{SQUAD} --dev-questions 0
{SQUAD} --precision bfloat16-master
{SQUAD} --optimizer adam
{SQUAD} --random-weight
{SQUAD} --data x
glue {{model}} rte --data {{glue}} --out {{new}}
glue {{model}} rte --out {{new}}
finetune {{model}} {{labels}} --out {{new}} --sequence-length 100000
compare {{model}} {{cased}} --out {{new}}
compare {{model}} {{cased}} --tasks rte --out {{new}} --sequence-length 80
compare {{model}} --data {{labels}} --seeds 0 --out {{new}} --sequence-length 80
finetune {{model}} {{labels}} --out {{new}} --text boddy
finetune {{model}} {{labels}} --out {{new}} --task clasification
finetune {{model}} {{labels}} --out {{new}} --dev-fraction 2
finetune {{model}} {{labels}} --out {{new}} --learning-rate 1e-3 --learning-rates 1e-3 1e-4
glue {{cased}} rte --data {{glue}} --out {{new}} --sequence-length 80
{GLUE} --train-examples 0
{GLUE} --seeds 0
{GLUE} --batch-size 0
{GLUE} --micro-batch-size 0
{GLUE} --learning-rate -1
{GLUE} --precision float16
{GLUE} --sequence-length 2
{GLUE} --train x
fill {{cased}} [MASK]
fill {{model}} --cased [MASK]
fill {{model}} [MASK] --candidates 0
fill {{model}} [MASK] --top-k 3
fill --model {{model}} [MASK]
fill {{model}} --text [MASK]
embed {{model}} {{fields}} --out {{new}}.npy
embed {{model}} {{table}} --out {{new}}.npy --column nothing
embed {{model}} {{text}} --out {{new}}.npy --column body
embed {{model}} {{text}} --out {{new}}.npy --sequence-length 100
embed {{model}} {{text}} --out {{new}}.npy --sequence-length 1
embed {{model}} {{text}} --out {{new}}.npy --batch-size 0
embed {{model}} {{text}} --out {{new}}.npy --cased
embed {{cased}} {{text}} --out {{new}}.npy
embed {{model}} {{text}}
embed-train {{model}} {{table}} --out {{new}}
embed-train {{model}} {{text}} --out {{new}} --columns body
embed-train {{model}} {{pairs}} --out {{new}} --epochs 0
embed-train {{model}} {{pairs}} --out {{new}} --batch-size 1
embed-train {{model}} {{pairs}} --out {{new}} --dropout 1
embed-train {{model}} {{pairs}} --out {{new}} --temperature 0
embed-train {{model}} {{pairs}} --out {{new}} --sequence-length 1
embed-eval {{model}} --dev {{table}}
embed-eval {{model}} --dev {{table}} --dev-columns body
embed-eval {{model}} --dev {{pairs}} --batch-size 0
embed-eval {{model}} --pairs {{pairs}}
export {{model}} --out {{new}}
report nowhere
report nowhere --out {{page}}
report {{model}} --out {{page}}
report {{model}} --html {{page}}
report --runs {{model}} --out {{page}}
track nowhere
track nowhere --tensorboard {{new}}
track nowhere --tensorboard {{text}}
doctor --fol .
pretain
""".strip().splitlines()
"""Refusals whose remedy says what to do in options, values or commands."""

TOLD = f"""
export nowhere {{new}}
finetune {{model}} {{one}} --out {{new}}
compare {{model}} {{model}} --data {{labels}} --out {{new}}
finetune {{model}} {{text}} --out {{new}}
finetune {{model}} {{squad}} --out {{new}}
finetune {{model}} nowhere.csv --out {{new}}
glue {{model}} nothing --data {{glue}} --out {{new}}
plan --recipe paper --batch-size all --dry-run 2
export {{model}} {{new}}
inspect {{corpus}} --vocab-size 3
prepare nowhere --out {{new}}
prepare {{list}} --out {{new}}
prepare {{row}} --out {{new}}
prepare {{text}} --out {{text}}
prepare {{text}} --out {{new}} --vocab {{text}}
prepare {{text}} --out {{new}} --batch-size 3
prepare {{empty}} --out {{new}}
{RUN} --batch-size 8 --samples 160 --init-from {{corpus}}
{PLANNED} --batch-size 8 --samples 160 --recipe nothing
{PLANNED} --batch-size 8 --samples 160 --phase-fractions .5 .4
{PLANNED} --batch-size 8 --samples 160 --phase-fractions .5
{PLANNED} --batch-size 8 8 8 --samples 16
{RUN} --batch-size 8 --samples 160 --follow
{RUN} --batch-size 8 --samples 160 --vocab-size 100
{PLAN} --chips 2 --cluster nothing
{PLAN} --noise-from nowhere
plan --no-probe --corpus {{corpus}} --recipe hplt-bert
{PLAN} --save-recipe {{text}}
{PLAN} --out x
{CLUSTER} --chips 8 --plot x.txt
sweep nowhere --out {{new}}
sweep {{text}} --out {{new}}
squad {{corpus}} --out {{new}} --train {{squad}} --dev {{squad}}
squad {{model}} --out {{new}} --train {{list}} --dev {{squad}} --sequence-length 80
squad --score {{list}} --dev {{squad}}
{SQUAD} --learning-rates 1e-3 1e-3
{SQUAD} --null-threshold nan
glue {{model}} mrpc --data {{glue}} --out {{new}} --sequence-length 80
fill {{corpus}} [MASK]
embed {{corpus}} {{text}} --out {{new}}.npy
embed {{model}} nowhere --out {{new}}.npy
embed {{model}} {{latin}} --out {{new}}.npy
embed {{model}} {{text}} --out {{new}}
embed-train {{model}} {{text}}
embed-train {{model}} {{text}} --out {{model}}
embed-train {{model}} {{words}} --out {{new}}
embed-eval {{model}}
embed-eval {{model}} --dev {{text}}
embed {{model}} {{text}} --out {{new}}.npy --pooling max
fill nowhere [MASK]
fill {{model}} old
fill {{model}}
track nowhere --wandb x --wandb-mode offlin
track --run {{model}} --tensorboard x
doctor --deep
doctor --out .
demo --batch-size 8
demo --model tiny
nothing
resume x
evaluate x
--help-me
-v
squad {{model}} --train {{squad}} --dev {{squad}} --out {{new}} --sequence-length 80 --warm x
""".strip().splitlines()
"""Refusals whose remedy asks for a file, a text or a choice that only a person can make."""
